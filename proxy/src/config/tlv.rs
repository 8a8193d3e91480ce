//! Which extensions of a PROXY header are passed on (Envoy `core.v3.ProxyProtocolPassThroughTLVs`).

/// Envoy `ProxyProtocolPassThroughTLVs`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PassedTlvs {
    /// Without the message.
    #[default]
    None,
    /// INCLUDE_ALL
    All,
    /// INCLUDE: these types.
    Only(Vec<u8>),
}

impl PassedTlvs {
    /// Whether TLVs of this type are passed on.
    pub fn contains(&self, kind: u8) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Only(kinds) => kinds.contains(&kind),
        }
    }
}
