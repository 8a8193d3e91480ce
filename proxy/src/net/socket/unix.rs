//! Unix sockets that are listened on, and their addresses.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;

use socket2::{Domain, SockAddr, Socket, Type};

use super::option::State;
use super::{BindError, ListenOptions};

/// The address of a Unix socket; `@` stands for the NUL that begins an abstract name.
///
/// # Errors
/// When it is too long.
pub fn address(path: &str) -> io::Result<SockAddr> {
    match path.strip_prefix('@') {
        Some(name) => SockAddr::unix(format!("\0{name}")),
        None => SockAddr::unix(path),
    }
}

/// Opens a non-blocking listening socket at `path`, in place of whatever is there: mostly the socket of a process
/// that is no more. Its file stays when it is closed.
pub fn listen(path: &str, options: &ListenOptions) -> Result<UnixListener, BindError> {
    open(path, options).map_err(|source| BindError {
        address: path.into(),
        check: check(&source),
        source,
    })
}

fn open(path: &str, options: &ListenOptions) -> io::Result<UnixListener> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    options.set(&socket, State::Prebind)?;
    let is_abstract = path.starts_with('@');
    if !is_abstract {
        // If it cannot be removed, it cannot be bound either.
        let _ = fs::remove_file(path);
    }
    socket.bind(&address(path)?)?;
    if options.mode != 0 && !is_abstract {
        fs::set_permissions(path, Permissions::from_mode(options.mode))?;
    }
    options.set(&socket, State::Bound)?;
    socket.listen(options.backlog)?;
    options.set(&socket, State::Listening)?;
    Ok(UnixListener::from(OwnedFd::from(socket)))
}

/// What an operator should look at first.
fn check(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => {
            "its directory must exist, and this process must be allowed to write there"
        }
        io::ErrorKind::AddrInUse => {
            "a directory, or another process if the name is abstract, is in its place"
        }
        _ => "check the path and the limits of this process",
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_stale_socket_is_replaced_and_the_mode_set() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("in.sock");
        let path = path.to_str().unwrap();
        let options = ListenOptions { backlog: 16, mode: 0o640, ..ListenOptions::default() };
        drop(listen(path, &options).unwrap());
        UnixStream::connect(path).unwrap_err();
        let _listener = listen(path, &options).unwrap();
        UnixStream::connect(path).unwrap();
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o640);
    }

    #[test]
    fn what_cannot_be_bound_is_named() {
        let options = ListenOptions { backlog: 16, ..ListenOptions::default() };
        let error = listen("/nowhere/in.sock", &options).unwrap_err().to_string();
        assert!(error.contains("/nowhere/in.sock") && error.contains("directory"), "{error}");
        let name = format!("@outrigger-unit-{}", std::process::id());
        let _held = listen(&name, &options).unwrap();
        let error = listen(&name, &options).unwrap_err().to_string();
        assert!(error.contains("abstract"), "{error}");
    }
}
