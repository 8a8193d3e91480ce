//! Answers about a configuration without serving it: what `outrigger`'s subcommands print.

pub mod explain;
pub mod fields;
pub mod route_check;
