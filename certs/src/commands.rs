//! What each subcommand of `outrigger-certs` does, and what it reports as JSON.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use certs::key::write_private;
use certs::rotation::RootRotation;
use certs::{Authority, CaFiles, KeyKind, Leaf, Request, Validity, bundle};
use serde_json::{Value, json};

use crate::{Command, InitOptions, IssueOptions, LifeOptions, RotateOptions, ShowOptions, Step};

const HOUR: Duration = Duration::from_secs(3600);
/// Where the next authority waits while a root is replaced.
const NEXT: &str = "next";
/// Where a replacement's state is kept; absent while there is none.
const STATE: &str = "rotation.json";

/// Does what `command` says at the moment `now`.
pub(crate) fn run(command: &Command, now: SystemTime) -> anyhow::Result<Value> {
    match command {
        Command::Init(options) => init(options, now),
        Command::Issue(options) => issue(options, now),
        Command::Show(options) => show(options, now),
        Command::Rotate(options) => rotate(options, now),
    }
}

fn init(options: &InitOptions, now: SystemTime) -> anyhow::Result<Value> {
    let InitOptions { ca_dir, life } = options;
    let files = make_authority(ca_dir, life, now)?;
    Ok(json!({ "files": files }))
}

fn make_authority(
    directory: &Path,
    life: &LifeOptions,
    now: SystemTime,
) -> anyhow::Result<Vec<PathBuf>> {
    let LifeOptions { name, root_days, intermediate_days } = life;
    let files = CaFiles::within(directory);
    if let Some(there) = [&files.key, &files.certificate].into_iter().find(|file| file.exists()) {
        bail!(
            "{} exists, and a new root would not vouch for what it signed; \
             `rotate` replaces a root, or choose another folder",
            there.display()
        );
    }
    let days = |days: u64| Validity::from(now, 24 * HOUR * u32::try_from(days).unwrap_or(u32::MAX));
    let root = Authority::self_signed_for(name, days(*root_days), KeyKind::default())?;
    let signer = root.intermediate_for(
        &format!("{name}, intermediate"),
        days(*intermediate_days),
        KeyKind::default(),
    )?;
    make_folder(directory)?;
    let root_key = directory.join("root-key.pem");
    write_private(&root_key, &root.key_pem())?;
    files.write(&signer)?;
    let CaFiles { certificate, key, chain, roots } = files;
    Ok(vec![certificate, key, chain, roots, root_key])
}

fn issue(options: &IssueOptions, now: SystemTime) -> anyhow::Result<Value> {
    let IssueOptions { ca_dir, out_dir, spiffe, dns, ip, hours, key } = options;
    if spiffe.is_none() && dns.is_empty() && ip.is_empty() {
        bail!("a certificate needs a name: give --spiffe, --dns or --ip");
    }
    let authority = CaFiles::within(ca_dir)
        .read()
        .context("no authority to sign with; `outrigger-certs init --ca-dir DIR` makes one")?;
    if !authority.validity().contains(now) {
        return Err(certs::Error::NotValid(authority.validity()).into());
    }
    let lifetime = HOUR * u32::try_from(*hours).unwrap_or(u32::MAX);
    let validity = Validity::from(now, lifetime).within(authority.validity());
    let mut request = Request::default().validity(validity).key((*key).into());
    request = spiffe.iter().fold(request, Request::uri);
    request = dns.iter().fold(request, Request::dns);
    request = ip.iter().copied().fold(request, Request::ip);
    let Leaf { chain_pem, key_pem } = authority.issue(&request)?;
    make_folder(out_dir)?;
    let names = ["cert.pem", "key.pem", "ca.pem"].map(|name| out_dir.join(name));
    let [certificate, key, roots] = &names;
    write_private(key, &key_pem)?;
    bundle::write(certificate, &chain_pem)?;
    bundle::write(roots, &authority.trust_pem())?;
    Ok(json!({ "files": names }))
}

fn show(options: &ShowOptions, now: SystemTime) -> anyhow::Result<Value> {
    let mut certificates = Vec::new();
    for file in &options.files {
        let text = read(file)?;
        let described = bundle::describe(&text, now);
        for described in described.with_context(|| file.display().to_string())? {
            certificates.push(json!({
                "file": file,
                "subject": described.subject,
                "issuer": described.issuer,
                "names": described.names,
                "authority": described.authority,
                "serial": described.serial,
                "not_before": described.not_before,
                "not_after": described.not_after,
                "days_left": described.days_left,
            }));
        }
    }
    Ok(json!({ "certificates": certificates }))
}

fn rotate(options: &RotateOptions, now: SystemTime) -> anyhow::Result<Value> {
    let RotateOptions { ca_dir, step } = options;
    let (files, next_dir) = (CaFiles::within(ca_dir), ca_dir.join(NEXT));
    let next = CaFiles::within(&next_dir);
    let state = read_state(ca_dir)?;
    let (state, advice) = match step {
        Step::Trust(life) => {
            let state = state.trust()?;
            let authority = files.read()?;
            // Left over from a step that was interrupted; nothing was signed with it.
            remove_folder(&next_dir)?;
            make_authority(&next_dir, life, now)?;
            let both = bundle::merge(&[&authority.trust_pem(), next.read()?.root_pem()])?;
            bundle::write(&files.roots, &both)?;
            (state, "give everyone root-cert.pem, then `rotate sign`")
        }
        Step::Sign => {
            // Running this step says that everyone trusts both.
            let state = state.sign(true, now)?;
            let both = read(&files.roots)?;
            bundle::write(&next.roots, &both)?;
            let signer = next.read()?;
            files.write(&signer)?;
            let root_key = ca_dir.join("root-key.pem");
            let next_key = next_dir.join("root-key.pem");
            // Absent if it was taken to a safer place, or moved before an interruption.
            if next_key.exists() {
                fs::rename(next_key, &root_key)
                    .with_context(|| format!("cannot replace {}", root_key.display()))?;
            }
            (state, "issue all certificates again; when the old ones have expired, `rotate forget`")
        }
        Step::Forget { longest_hours } => {
            let longest = HOUR * u32::try_from(*longest_hours).unwrap_or(u32::MAX);
            let state = state.forget(longest, now)?;
            bundle::write(&files.roots, files.read()?.root_pem())?;
            (state, "give everyone root-cert.pem")
        }
    };
    write_state(ca_dir, state)?;
    if state != RootRotation::Trusting {
        remove_folder(&next_dir)?;
    }
    Ok(json!({ "files": [files.roots], "next": advice }))
}

fn read_state(directory: &Path) -> anyhow::Result<RootRotation> {
    let path = directory.join(STATE);
    if !path.exists() {
        return Ok(RootRotation::Settled);
    }
    let unreadable = || format!("{} is not as `rotate` wrote it", path.display());
    let state: Value = serde_json::from_str(&read(&path)?).with_context(unreadable)?;
    match (state["step"].as_str(), state["since"].as_u64()) {
        (Some("trust"), _) => Ok(RootRotation::Trusting),
        (Some("sign"), Some(since)) => {
            let since = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(since));
            Ok(RootRotation::Signing { since: since.with_context(unreadable)? })
        }
        _ => bail!(unreadable()),
    }
}

fn write_state(directory: &Path, state: RootRotation) -> anyhow::Result<()> {
    let path = directory.join(STATE);
    let state = match state {
        RootRotation::Settled => {
            return fs::remove_file(&path)
                .with_context(|| format!("cannot remove {}", path.display()));
        }
        RootRotation::Trusting => json!({ "step": "trust" }),
        RootRotation::Signing { since } => {
            let since = since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            // Whole seconds, not earlier than the truth.
            json!({ "step": "sign", "since": since.as_secs() + 1 })
        }
    };
    Ok(bundle::write(&path, &state.to_string())?)
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn remove_folder(path: &Path) -> anyhow::Result<()> {
    if !path.exists() {
        return Ok(());
    }
    fs::remove_dir_all(path).with_context(|| format!("cannot remove {}", path.display()))
}

fn make_folder(path: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::Options;

    fn call(arguments: &str, now: SystemTime) -> anyhow::Result<Value> {
        let arguments = ["outrigger-certs"].into_iter().chain(arguments.split(' '));
        run(&Options::try_parse_from(arguments)?.command, now)
    }

    #[test]
    fn a_root_is_replaced_from_the_command_line() {
        let folder = tempfile::tempdir().unwrap();
        let (dir, start) = (folder.path().display(), SystemTime::now());
        let roots = || bundle::split(&read(&folder.path().join("root-cert.pem")).unwrap()).unwrap();
        call(&format!("init --ca-dir {dir}"), start).unwrap();
        let old = roots();
        call(&format!("init --ca-dir {dir}"), start).unwrap_err();
        let issue = format!("issue --ca-dir {dir} --out-dir {dir}/cart --spiffe spiffe://td/cart");
        call(&issue, start).unwrap();
        let rotate = |step: &str, now| call(&format!("rotate --ca-dir {dir} {step}"), now);
        rotate("sign", start).unwrap_err();
        rotate("trust", start).unwrap();
        rotate("trust", start).unwrap_err();
        assert_eq!((roots().len(), &roots()[0]), (2, &old[0]));
        rotate("sign", start).unwrap();
        assert_eq!(roots().len(), 2);
        call(&issue, start).unwrap();
        rotate("forget", start + 24 * HOUR).unwrap_err();
        rotate("forget", start + 25 * HOUR).unwrap();
        assert!(roots().len() == 1 && roots() != old);
        rotate("trust", start + 25 * HOUR).unwrap();
    }

    #[test]
    fn what_is_issued_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let (dir, now) = (folder.path().display(), SystemTime::now());
        call(&format!("init --ca-dir {dir} --intermediate-days 2"), now).unwrap();
        let issue = format!("issue --ca-dir {dir} --out-dir {dir}/cart --hours 900");
        assert!(call(&issue, now).unwrap_err().to_string().contains("--spiffe"));
        call(&format!("{issue} --spiffe spiffe://td/ns/a/sa/b --dns b.a"), now).unwrap();
        let shown = call(&format!("show {dir}/cart/cert.pem {dir}/cart/ca.pem"), now).unwrap();
        let shown = shown["certificates"].as_array().unwrap();
        assert_eq!(shown.len(), 3);
        assert_eq!(shown[0]["names"], json!(["spiffe://td/ns/a/sa/b", "b.a"]));
        assert_eq!((&shown[0]["authority"], &shown[1]["authority"]), (&json!(false), &json!(true)));
        assert_eq!(shown[0]["not_after"], shown[1]["not_after"]);
        assert!(shown[0]["days_left"].as_f64().unwrap() <= 2.0);
        call(&format!("{issue} --dns b.a"), now + 72 * HOUR).unwrap_err();
        call(&format!("show {dir}/cart/key.pem"), now).unwrap_err();
    }
}
