//! What hosts are called.

/// A host as the user named it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostSpec {
    /// As it was given, without slots: what the output calls it.
    pub name: String,
    /// Who logs in, if the name says so.
    pub user: Option<String>,
    /// The name or address to connect to, or a `Host` of the SSH configuration.
    pub host: String,
    /// The port, if the name says so.
    pub port: Option<u16>,
}
