//! The Dockerfile's images: their programs, as user 1337, in a root that holds nothing else.
//!
//! `.ci/image DIR` builds the directories by the Dockerfile's own commands; `IMAGE_ROOTS=DIR` runs this.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use harness::{Bootstrap, Client, Route, eventually};

const BOOTSTRAP: &str = "static_resources: {listeners: [], clusters: []}\n";

#[test]
fn the_dockerfile_keeps_its_promises() {
    let text = std::fs::read_to_string(dockerfile()).unwrap();
    let images: Vec<&str> = text.split("\nFROM ").skip(1).collect();
    let finals: Vec<&&str> = images.iter().filter(|image| image.starts_with("scratch")).collect();
    assert_eq!(finals.len(), 2, "one image per program, from nothing");
    for image in finals {
        assert!(image.contains("\nUSER 1337:1337\n"), "not as root: {image}");
        assert!(!image.contains("\nRUN "), "nothing happens in the image itself: {image}");
    }
}

#[test]
fn the_proxy_runs_with_nothing_else_around_it() {
    let Some(root) = image("proxy") else { return };
    for program in ["/usr/local/bin/outrigger", "/usr/local/bin/envoy"] {
        let version = inside(&root, &[program, "--version"]);
        let said = String::from_utf8_lossy(&version.stdout);
        assert!(version.status.success() && said.contains("outrigger"), "{version:?}");
    }
    let arguments = ["/usr/local/bin/outrigger", "--mode", "validate", "--config-yaml", BOOTSTRAP];
    let validated = inside(&root, &arguments);
    assert!(validated.status.success(), "{validated:?}");
}

#[test]
fn the_control_plane_teaches_how_to_run_it_in_the_image_too() {
    let Some(root) = image("control") else { return };
    let output = inside(&root, &["/usr/local/bin/outrigger-control"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("Serve a mesh"), "{output:?}");
}

#[tokio::test]
async fn the_proxy_serves_with_nothing_else_around_it() {
    let Some(root) = image("proxy") else { return };
    let bootstrap = Bootstrap::routing([Route::prefix("/").direct(200, "from the image")]);
    let address = bootstrap.address("main");
    let yaml = bootstrap.to_yaml();
    let mut process =
        chroot(&root, &["/usr/local/bin/outrigger", "--config-yaml", &yaml]).spawn().unwrap();
    let text = eventually("an answer from the image", async || {
        assert!(process.try_wait().unwrap().is_none(), "the proxy has ended");
        Some(Client::http1(address).get("/").try_send().await.ok()?.text())
    });
    assert_eq!(text.await, "from the image");
    process.kill().unwrap();
    process.wait().unwrap();
}

fn inside(root: &Path, command: &[&str]) -> Output {
    chroot(root, command).output().unwrap()
}

/// `command` as user 1337, with `root` as its whole world and no environment but a path to chroot itself.
fn chroot(root: &Path, command: &[&str]) -> Command {
    let mut chroot = Command::new("chroot");
    chroot.arg("--userspec=1337:1337").arg(root).args(command);
    chroot.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    chroot
}

/// The root directory of one image; none, and a loud word, where there is none to test.
fn image(name: &str) -> Option<PathBuf> {
    let roots = std::env::var_os("IMAGE_ROOTS");
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout == b"0\n");
    if let (Some(roots), true) = (roots, is_root) {
        return Some(Path::new(&roots).join(name));
    }
    // Not eprintln!, which the test runner swallows when a test passes.
    let _ = writeln!(
        std::io::stderr(),
        "SKIPPED: the images' programs in a chroot (needs root and IMAGE_ROOTS: `.ci/run image`)"
    );
    None
}

fn dockerfile() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("Dockerfile")
}
