//! The program must not pretend to work.

use std::process::Command;

#[test]
fn it_says_that_it_is_not_there_and_fails() {
    let output = Command::new(env!("CARGO_BIN_EXE_outrigger-control")).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("not there yet"), "{said}");
    assert!(output.stdout.is_empty());
}
