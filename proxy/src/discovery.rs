//! Configuration in: what files say becomes validated data.

pub mod decode;
