//! Answers about a configuration without serving it: what `outrigger`'s subcommands print.

pub mod route_check;
