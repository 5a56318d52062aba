//! Who the members of a hub are, and what each may do: told by client certificates, or by the way they
//! come.
//!
//! Refuses everybody who is not named, where certificates are asked for.

use crate::config::{HubListener, Member, MemberScope};

/// Everybody whom a hub knows.
#[derive(Clone, Debug)]
pub struct Members {
    named: Vec<Member>,
    /// Nobody is told apart over TCP.
    open: bool,
}

impl Members {
    /// As they are configured.
    pub fn new(config: &HubListener) -> Self {
        Self { named: config.members.clone(), open: config.insecure && !config.asks_for_certificates() }
    }

    /// What somebody may do who shows a certificate of these names: the most that any of them may.
    pub fn with_certificate(&self, names: &[String]) -> Option<MemberScope> {
        let known = self.named.iter().filter(|member| names.contains(&member.subject));
        known.map(|member| member.scope).max()
    }

    /// What somebody may do who comes over TCP and shows none.
    pub fn unnamed(&self) -> Option<MemberScope> {
        self.open.then_some(MemberScope::Operate)
    }

    /// What somebody may do who comes over the Unix socket.
    pub fn over_unix(&self) -> MemberScope {
        MemberScope::Gate
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Tls;

    #[test]
    fn members_are_told_by_their_names() {
        let member = |subject: &str, scope| Member { subject: subject.into(), scope };
        let tls = Tls { certificate: "c".into(), key: "k".into(), client_ca: Some("ca".into()) };
        let config = HubListener {
            tls: Some(tls),
            insecure: true,
            members: vec![member("gate", MemberScope::Gate), member("spiffe://x/op", MemberScope::Operate)],
            ..HubListener::default()
        };
        let members = Members::new(&config);
        let scope = |names: &[&str]| {
            members.with_certificate(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
        };
        assert_eq!(scope(&["other", "gate"]), Some(MemberScope::Gate));
        assert_eq!(scope(&["gate", "spiffe://x/op"]), Some(MemberScope::Operate));
        assert_eq!(scope(&["gat", "gate.example", "GATE"]), None);
        assert_eq!(scope(&[]), None);
        assert_eq!(members.unnamed(), None, "certificates are asked for");
        assert_eq!(Members::new(&HubListener::default()).unnamed(), None);
        let open = HubListener { insecure: true, ..HubListener::default() };
        assert_eq!(Members::new(&open).unnamed(), Some(MemberScope::Operate));
    }
}
