//! How the agent is asked for: options of ours, which the environment of Istio's agent can set as well.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, anyhow};
use certs::KeyKind;
use xds::yaml::tree::{Value, parse_all};

/// Where pods have the token that is meant for the control plane.
const TOKEN: &str = "./var/run/secrets/tokens/istio-token";
/// Where they have their general one (`JWT_POLICY=first-party-jwt`).
const FIRST_PARTY_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
/// Where they have the mesh's roots.
const ROOTS: &str = "./var/run/secrets/istio/root-cert.pem";
/// Stands for what the system trusts.
const SYSTEM: &str = "SYSTEM";
/// Where systems keep what they trust.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// The workload's own certificate.
#[derive(Debug, Clone, clap::Args)]
#[command(
    next_help_heading = "The workload's certificate (given a CA, secrets of the cluster sds-grpc come from here)"
)]
pub struct AgentOptions {
    /// Istio CA service that signs it, as HOST:PORT; by default discoveryAddress of PROXY_CONFIG
    #[arg(long, env = "CA_ADDR", value_name = "ADDRESS")]
    pub ca_address: Option<String>,

    /// Roots that the CA service is verified against, or SYSTEM [default: ./var/run/secrets/istio/root-cert.pem]
    #[arg(long, env = "CA_ROOT_CA", value_name = "FILE")]
    pub ca_root: Option<PathBuf>,

    /// Name that the CA service's certificate must have, if it is not the address's host
    #[arg(long, env = "ISTIOD_SAN", value_name = "NAME")]
    pub ca_server_name: Option<String>,

    /// Token that proves who asks, read anew each time [default: ./var/run/secrets/tokens/istio-token]
    #[arg(long, value_name = "FILE")]
    pub ca_token: Option<PathBuf>,

    /// Directory with cert-chain.pem and key.pem, which prove who asks where no token does
    #[arg(long, env = "PROV_CERT", value_name = "DIRECTORY")]
    pub provisioned_certificate: Option<PathBuf>,

    /// Directory that keeps certificate, key and roots for a restart without the CA; by default the key stays in memory
    #[arg(long, env = "OUTPUT_CERTS", value_name = "DIRECTORY")]
    pub output_certs: Option<PathBuf>,

    /// Trust domain of the workload
    #[arg(long, env = "TRUST_DOMAIN", value_name = "NAME", default_value = "cluster.local")]
    pub trust_domain: String,

    /// Namespace of the workload
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAME", default_value = "default")]
    pub workload_namespace: String,

    /// Service account of the workload
    #[arg(long, env = "SERVICE_ACCOUNT", value_name = "NAME", default_value = "default")]
    pub service_account: String,

    /// Cluster that the workload is in
    #[arg(long, env = "ISTIO_META_CLUSTER_ID", value_name = "ID", default_value = "Kubernetes")]
    pub cluster_id: String,

    /// How long certificates are to be valid
    #[arg(long, env = "SECRET_TTL", value_name = "DURATION", default_value = "24h", value_parser = duration)]
    pub certificate_lifetime: Duration,

    /// Part of its life after which a certificate is renewed
    #[arg(long, env = "SECRET_GRACE_PERIOD_RATIO", value_name = "RATIO", default_value_t = 0.5, value_parser = ratio)]
    pub renew_at: f64,

    /// By how much of its life that moment moves to either side by chance
    #[arg(long, env = "SECRET_GRACE_PERIOD_RATIO_JITTER", value_name = "RATIO", default_value_t = 0.05, value_parser = ratio)]
    pub renew_jitter: f64,
}

impl AgentOptions {
    /// Where the CA service is; none if there is to be no agent.
    ///
    /// # Errors
    /// If PROXY_CONFIG cannot be read.
    pub(super) fn address(&self) -> Result<Option<String>> {
        if let Some(address) = self.ca_address.as_ref().filter(|address| !address.is_empty()) {
            return Ok(Some(address.clone()));
        }
        match std::env::var("PROXY_CONFIG") {
            Ok(config) if !config.trim().is_empty() => discovery_address(&config),
            _ => Ok(None),
        }
    }

    /// Refuses what the environment asks of Istio's agent and this one does not do.
    ///
    /// # Errors
    /// What that is.
    pub(super) fn check(&self) -> Result<()> {
        let refused = |name: &str, good: &[&str], instead: &str| {
            let value = std::env::var(name).unwrap_or_default();
            if good.contains(&value.as_str()) {
                return Ok(());
            }
            Err(anyhow!("{name}={value} is not supported: {instead}"))
        };
        refused("CA_PROVIDER", &["", "Citadel"], "the CA service speaks Istio's protocol")?;
        refused("CREDENTIAL_FETCHER_TYPE", &["", "JWT"], "tokens are read from a file")?;
        refused("FILE_MOUNTED_CERTS", &["", "false"], "configure the files as file-cert: secrets")?;
        Ok(())
    }

    /// The kind of key to make: ECDSA, on P-384 if Istio's variables ask for that.
    pub(super) fn key_kind(&self) -> Result<KeyKind> {
        match std::env::var("ECC_CURVE").as_deref() {
            Err(_) | Ok("" | "P256") => Ok(KeyKind::EcdsaP256),
            Ok("P384") => Ok(KeyKind::EcdsaP384),
            Ok(other) => Err(anyhow!("ECC_CURVE={other} is not supported: use P256 or P384")),
        }
    }

    /// The token's file.
    pub(super) fn token_path(&self) -> PathBuf {
        let first_party = std::env::var("JWT_POLICY").is_ok_and(|it| it == "first-party-jwt");
        let default = if first_party { FIRST_PARTY_TOKEN } else { TOKEN };
        self.ca_token.clone().unwrap_or_else(|| default.into())
    }

    /// The file of the roots that the CA service is verified against.
    ///
    /// # Errors
    /// If they are the system's, and it has none.
    pub(super) fn roots_path(&self) -> Result<PathBuf> {
        match &self.ca_root {
            None => Ok(ROOTS.into()),
            Some(path) if path.as_os_str().is_empty() => Ok(ROOTS.into()),
            Some(path) if path.as_os_str() == SYSTEM => {
                let found = SYSTEM_ROOTS.into_iter().map(Path::new).find(|path| path.exists());
                let none = || anyhow!("CA_ROOT_CA=SYSTEM: the system has no bundle of roots");
                found.map(Path::to_owned).ok_or_else(none)
            }
            Some(path) => Ok(path.clone()),
        }
    }
}

/// `discoveryAddress` of a `ProxyConfig` in YAML or JSON.
fn discovery_address(config: &str) -> Result<Option<String>> {
    let documents = parse_all(config).map_err(|error| anyhow!("PROXY_CONFIG: {}", error.reason))?;
    let Some(Value::Map(fields)) = documents.into_iter().next().map(|root| root.value) else {
        return Ok(None);
    };
    let address = fields.into_iter().find(|(key, _)| key.text == "discoveryAddress");
    Ok(address.and_then(|(_, value)| match value.value {
        Value::Scalar { text, .. } if !text.is_empty() => Some(text.into_owned()),
        _ => None,
    }))
}

fn ratio(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=1.0).contains(&value) { Ok(value) } else { Err("not between 0 and 1".to_owned()) }
}

/// Go's form: `24h`, `1h30m`, `10s`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "write it like 24h, 1h30m or 90s".to_owned();
    let (mut rest, mut seconds) = (text, 0.0);
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (value, after) = rest.split_at(number);
        let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let unit = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            _ => return Err(wrong()),
        };
        seconds += unit * value.parse::<f64>().map_err(|_| wrong())?;
        rest = after;
    }
    let duration = Duration::try_from_secs_f64(seconds).map_err(|_| wrong())?;
    if duration < Duration::from_secs(1) { Err("at least 1s".to_owned()) } else { Ok(duration) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_in_go() {
        let read = |text| duration(text).ok().map(|it| it.as_secs());
        assert_eq!(read("24h0m0s"), Some(86_400));
        assert_eq!(read("1h30m"), Some(5400));
        assert_eq!(read("1.5h"), Some(5400));
        for wrong in ["", "0s", "24", "h", "1d", "-1h", "100ms"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_ca_is_where_the_control_plane_is_unless_said_otherwise() {
        let of = |config| discovery_address(config).unwrap();
        let address = Some("istiod.istio-system.svc:15012".to_owned());
        assert_eq!(
            of(r#"{"discoveryAddress": "istiod.istio-system.svc:15012", "a": {"b": 1}}"#),
            address
        );
        assert_eq!(
            of("discoveryAddress: istiod.istio-system.svc:15012\nconcurrency: 2\n"),
            address
        );
        assert_eq!(of("concurrency: 2\n"), None);
        assert!(discovery_address("a: [").is_err());
    }
}
