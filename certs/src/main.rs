//! The command `outrigger-certs`: makes a root and workload certificates for examples and tests.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use certs::key::write_private;
use certs::{Authority, KeyKind, Leaf, Request, SpiffeId, Validity};
use clap::{Args, Parser, Subcommand, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  A root, then a certificate for a workload of the mesh:
    outrigger-certs root --out-dir pki
    outrigger-certs issue --ca-dir pki --out-dir pki/cart \\
        --spiffe-id spiffe://cluster.local/ns/shop/sa/cart --dns cart.shop.svc

  The second command writes what an Envoy TLS context wants:
    pki/cart/cert.pem   tls_certificates[0].certificate_chain
    pki/cart/key.pem    tls_certificates[0].private_key (mode 0600)
    pki/cart/ca.pem     validation_context.trusted_ca

This is no certificate service: nothing is renewed or revoked. Run `issue` again before the
certificate expires; a proxy that watches the files takes up the new one without a restart.";

/// Makes a root and workload certificates.
#[derive(Debug, Parser)]
#[command(name = "outrigger-certs", version, after_help = EXAMPLES)]
struct Options {
    /// How to report what was written.
    #[arg(long, global = true, value_enum, default_value_t = Output::Text)]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Output {
    /// One line for each file.
    Text,
    /// One JSON object: {"files": [..]}.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes a root: ca.pem, and ca-key.pem which only its owner can read.
    Root(RootOptions),
    /// Makes a key and a certificate for a workload: cert.pem, key.pem, and ca.pem to trust.
    Issue(IssueOptions),
}

#[derive(Debug, Args)]
struct RootOptions {
    /// Where to write; made if absent.
    #[arg(long, value_name = "DIR")]
    out_dir: PathBuf,
    /// The root's name.
    #[arg(long, default_value = "Outrigger root")]
    name: String,
    /// Validity in days.
    #[arg(long, default_value_t = 3650, value_parser = clap::value_parser!(u64).range(1..=36_500))]
    days: u64,
}

#[derive(Debug, Args)]
struct IssueOptions {
    /// Where `root` wrote.
    #[arg(long, value_name = "DIR")]
    ca_dir: PathBuf,
    /// Where to write; made if absent, its files replaced.
    #[arg(long, value_name = "DIR")]
    out_dir: PathBuf,
    /// The workload's identity: spiffe://TRUST_DOMAIN/PATH.
    #[arg(long, value_name = "ID")]
    spiffe_id: Option<SpiffeId>,
    /// A DNS name; may be given several times, may begin with `*.`.
    #[arg(long, value_name = "NAME")]
    dns: Vec<String>,
    /// An IP address; may be given several times.
    #[arg(long, value_name = "ADDRESS")]
    ip: Vec<IpAddr>,
    /// Validity in hours.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u64).range(1..=876_000))]
    hours: u64,
    /// The kind of key.
    #[arg(long, value_enum, default_value_t = Kind::EcdsaP256)]
    key: Kind,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    /// ECDSA on P-256.
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
    /// RSA with 2048 bits.
    Rsa2048,
}

fn main() -> ExitCode {
    let Options { output, command } = Options::parse();
    let written = match command {
        Command::Root(options) => root(&options),
        Command::Issue(options) => issue(&options),
    };
    match written {
        Ok(files) => {
            report(&files, output);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("outrigger-certs: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn root(options: &RootOptions) -> anyhow::Result<Vec<PathBuf>> {
    let RootOptions { out_dir, name, days } = options;
    let (certificate, key) = (out_dir.join("ca.pem"), out_dir.join("ca-key.pem"));
    if key.exists() {
        bail!(
            "{} exists, and a new root would not vouch for what it signed; \
             choose another --out-dir, or remove it first",
            key.display()
        );
    }
    let lifetime = Duration::from_secs(days * 24 * 60 * 60);
    let validity = Validity::from(SystemTime::now(), lifetime);
    let authority = Authority::self_signed_for(name, validity, KeyKind::default())?;
    make_folder(out_dir)?;
    write_private(&key, &authority.key_pem())?;
    write(&certificate, authority.root_pem())?;
    Ok(vec![certificate, key])
}

fn issue(options: &IssueOptions) -> anyhow::Result<Vec<PathBuf>> {
    let IssueOptions { ca_dir, out_dir, spiffe_id, dns, ip, hours, key } = options;
    if spiffe_id.is_none() && dns.is_empty() && ip.is_empty() {
        bail!("a certificate needs a name: give --spiffe-id, --dns or --ip");
    }
    let authority = Authority::read(&ca_dir.join("ca.pem"), &ca_dir.join("ca-key.pem"))
        .context("no root to sign with; `outrigger-certs root --out-dir DIR` makes one")?;
    let lifetime = Duration::from_secs(hours * 60 * 60);
    let mut request =
        Request::default().validity(Validity::from(SystemTime::now(), lifetime)).key(match key {
            Kind::EcdsaP256 => KeyKind::EcdsaP256,
            Kind::EcdsaP384 => KeyKind::EcdsaP384,
            Kind::Rsa2048 => KeyKind::Rsa2048,
        });
    request = spiffe_id.iter().fold(request, Request::uri);
    request = dns.iter().fold(request, Request::dns);
    request = ip.iter().copied().fold(request, Request::ip);
    let Leaf { chain_pem, key_pem } = authority.issue(&request)?;
    make_folder(out_dir)?;
    let names = ["cert.pem", "key.pem", "ca.pem"].map(|name| out_dir.join(name));
    let [certificate, key, roots] = &names;
    write_private(key, &key_pem)?;
    write(certificate, &chain_pem)?;
    write(roots, authority.root_pem())?;
    Ok(names.into())
}

fn make_folder(path: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn report(files: &[PathBuf], output: Output) {
    match output {
        Output::Text => {
            for file in files {
                println!("wrote {}", file.display());
            }
        }
        Output::Json => println!("{}", serde_json::json!({ "files": files })),
    }
}
