//! Scenarios from outside: real processes, real sockets, and a real Envoy as the second opinion.
