//! The command `outrigger-certs`: makes authorities and workload certificates, and replaces roots.

mod commands;

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use certs::{KeyKind, SpiffeId};
use clap::{Args, Parser, Subcommand, ValueEnum};
use serde_json::Value;

const EXAMPLES: &str = "\
Examples:
  A root with an intermediate that signs, then a certificate for a workload of the mesh:
    outrigger-certs init --ca-dir pki
    outrigger-certs issue --ca-dir pki --out-dir pki/cart \\
        --spiffe spiffe://cluster.local/ns/shop/sa/cart --dns cart.shop.svc

  The first command writes the files of Istio's secret `cacerts`, and the root's key:
    pki/ca-cert.pem, ca-key.pem    what signs workloads
    pki/cert-chain.pem             from it up to the root
    pki/root-cert.pem              what everyone is to trust
    pki/root-key.pem               needed for the next intermediate only: keep it elsewhere

  The second writes what an Envoy TLS context wants:
    pki/cart/cert.pem   tls_certificates[0].certificate_chain
    pki/cart/key.pem    tls_certificates[0].private_key (mode 0600)
    pki/cart/ca.pem     validation_context.trusted_ca

  A new root without a failed handshake, each step when everybody has the one before:
    outrigger-certs rotate --ca-dir pki trust    then give everyone pki/root-cert.pem
    outrigger-certs rotate --ca-dir pki sign     then issue all certificates again
    outrigger-certs rotate --ca-dir pki forget   then give everyone pki/root-cert.pem

Nothing here is renewed by itself: run `issue` again before a certificate expires, which `show`
tells. A proxy that watches the files takes up new ones without a restart.";

/// Makes authorities and workload certificates, and replaces roots.
#[derive(Debug, Parser)]
#[command(name = "outrigger-certs", version, after_help = EXAMPLES)]
struct Options {
    /// How to report.
    #[arg(long, global = true, value_enum, default_value_t = Output::Text)]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Output {
    /// Lines to read.
    Text,
    /// One JSON object: {"files": [..]} or {"certificates": [..]}.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Makes a root and an intermediate that signs for it.
    Init(InitOptions),
    /// Makes a key and a certificate for a workload: cert.pem, key.pem, and ca.pem to trust.
    Issue(IssueOptions),
    /// Tells what certificates say, and how many days are left.
    Show(ShowOptions),
    /// Replaces the root in three steps: trust, sign, forget.
    Rotate(RotateOptions),
}

#[derive(Debug, Args)]
struct InitOptions {
    /// Where to write; made if absent.
    #[arg(long, value_name = "DIR")]
    ca_dir: PathBuf,
    #[command(flatten)]
    life: LifeOptions,
}

#[derive(Debug, Args)]
struct LifeOptions {
    /// The root's name.
    #[arg(long, default_value = "Outrigger root")]
    name: String,
    /// The root's validity in days.
    #[arg(long, default_value_t = 3650, value_parser = clap::value_parser!(u64).range(1..=36_500))]
    root_days: u64,
    /// The intermediate's validity in days, at most the root's.
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u64).range(1..=36_500))]
    intermediate_days: u64,
}

#[derive(Debug, Args)]
struct IssueOptions {
    /// Where `init` wrote, or where the files of Istio's secret `cacerts` are.
    #[arg(long, value_name = "DIR")]
    ca_dir: PathBuf,
    /// Where to write; made if absent, its files replaced.
    #[arg(long, value_name = "DIR")]
    out_dir: PathBuf,
    /// The workload's identity: spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/ACCOUNT.
    #[arg(long, value_name = "ID")]
    spiffe: Option<SpiffeId>,
    /// A DNS name; may be given several times, may begin with `*.`.
    #[arg(long, value_name = "NAME")]
    dns: Vec<String>,
    /// An IP address; may be given several times.
    #[arg(long, value_name = "ADDRESS")]
    ip: Vec<IpAddr>,
    /// Validity in hours, at most what is left of the authority's.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u64).range(1..=876_000))]
    hours: u64,
    /// The kind of key.
    #[arg(long, value_enum, default_value_t = Kind::EcdsaP256)]
    key: Kind,
}

#[derive(Debug, Args)]
struct ShowOptions {
    /// Files with certificates in PEM.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

#[derive(Debug, Args)]
struct RotateOptions {
    /// Where `init` wrote.
    #[arg(long, value_name = "DIR")]
    ca_dir: PathBuf,
    #[command(subcommand)]
    step: Step,
}

#[derive(Debug, Subcommand)]
enum Step {
    /// Makes the next root and adds it to root-cert.pem; the old one still signs.
    Trust(LifeOptions),
    /// Lets the next root's intermediate sign; only after everyone has the new root-cert.pem.
    Sign,
    /// Takes the old root out of root-cert.pem; refused while something it signed can be valid.
    Forget {
        /// The longest validity in hours that certificates were given.
        #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u64).range(0..=876_000))]
        longest_hours: u64,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    /// ECDSA on P-256.
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
    /// RSA with 2048 bits.
    Rsa2048,
    /// Ed25519; an Envoy that verifies it fails the handshake unless told otherwise.
    Ed25519,
}

impl From<Kind> for KeyKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::EcdsaP256 => Self::EcdsaP256,
            Kind::EcdsaP384 => Self::EcdsaP384,
            Kind::Rsa2048 => Self::Rsa2048,
            Kind::Ed25519 => Self::Ed25519,
        }
    }
}

fn main() -> ExitCode {
    let Options { output, command } = Options::parse();
    match commands::run(&command, std::time::SystemTime::now()) {
        Ok(report) => {
            print(&report, output);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("outrigger-certs: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn print(report: &Value, output: Output) {
    if matches!(output, Output::Json) {
        println!("{report}");
        return;
    }
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    for file in report["files"].as_array().into_iter().flatten() {
        println!("wrote {}", text(file));
    }
    for certificate in report["certificates"].as_array().into_iter().flatten() {
        for (name, value) in certificate.as_object().into_iter().flatten() {
            println!("{name:12} {}", text(value));
        }
        println!();
    }
    if let Some(next) = report["next"].as_str() {
        println!("next: {next}");
    }
}
