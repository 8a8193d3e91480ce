//! Outrigger's data plane: a proxy configured by Envoy's v3 API.
//!
//! The path of a request, file by file: [`listener::accept`] takes the connection, `listener/filters` peek at it,
//! [`filter_chain`] picks its chain and TLS ends there; [`http::codec`] speaks HTTP/1 or HTTP/2 with the client,
//! [`http::service`] brings the request into canonical form and asks [`route`] what to do with it, [`http::router`] forwards it:
//! [`cluster`] picks a host, [`pool`] a connection to it, [`upstream`] dials when there is none. [`http::body`] carries the response
//! back, and [`http::finish`] counts and logs it.
//!
//! Configuration comes the other way: [`discovery`] reads bytes, checks them and links them into a [`snapshot`], which is published
//! in one store; a request loads it once.
//!
//! A module uses only those listed after it:

pub mod server;

pub mod offline;

pub mod admin;

pub mod discovery;

pub mod listener;

pub mod tcp;

pub mod http;

pub mod rbac;

pub mod worker;

pub mod call;

pub mod snapshot;

pub mod filter_chain;

pub mod cluster;

pub mod pool;

pub mod upstream;

pub mod jwt;

pub mod route;

pub mod tls;

pub mod dns;

pub mod overload;

pub mod telemetry;

pub mod config;

pub mod net;

pub mod drain;

pub use server::main_with_args;
