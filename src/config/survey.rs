//! What a cloud config will do: a lenient look at it, for the operator's eyes only.
//!
//! Nothing here changes a byte of it, and what is not understood is left out: the nodes are the judges.

use std::collections::BTreeSet;

use super::node::Node;
use super::yaml;

/// What could be read of a cloud config.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Survey {
    installs: bool,
    device: Option<String>,
    /// `reboots` or `powers off`, after the installation.
    afterwards: Option<&'static str>,
    users: BTreeSet<String>,
    has_admin: bool,
    no_users_wanted: bool,
    /// Such as `k3s server`.
    roles: Vec<&'static str>,
    /// Keys of `install:` that stand beside it.
    outdented: Vec<&'static str>,
}

/// Looks at a cloud config.
///
/// # Errors
/// It is not YAML, or not a group of keys; in one line.
pub fn survey(bytes: &[u8]) -> Result<Survey, String> {
    let root = yaml::parse(bytes).map_err(|error| error.to_string())?;
    if !matches!(root, Node::Map(_) | Node::Null) {
        return Err(format!("it is {}, not a group of keys", root.kind()));
    }
    let mut survey = Survey::default();
    survey.install(&root);
    survey.users(&root);
    for (path, role) in [
        ("k3s.enabled", "k3s server"),
        ("k3s-agent.enabled", "k3s agent"),
        ("k0s.enabled", "k0s controller"),
        ("k0s-worker.enabled", "k0s worker"),
    ] {
        survey.roles.extend(is_true(&root, path).then_some(role));
    }
    if at(&root, "p2p").is_some_and(|p2p| *p2p != Node::Null) {
        survey.roles.push("p2p mesh");
    }
    Ok(survey)
}

impl Survey {
    fn install(&mut self, root: &Node) {
        self.installs = is_true(root, "install.auto");
        self.device = at(root, "install.device").and_then(text);
        self.no_users_wanted = is_true(root, "install.nousers");
        self.afterwards = match (is_true(root, "install.reboot"), is_true(root, "install.poweroff")) {
            (true, _) => Some("reboots"),
            (_, true) => Some("powers off"),
            _ => None,
        };
        if at(root, "install") == Some(&Node::Null) {
            self.outdented = vec!["auto", "device", "reboot", "poweroff"];
            self.outdented.retain(|key| at(root, key).is_some());
        }
    }

    /// `users` at the top is a list; in a stage it is a map from names.
    fn users(&mut self, root: &Node) {
        if let Some(Node::List(users)) = at(root, "users") {
            users.iter().for_each(|user| self.user(at(user, "name").and_then(text), user));
        }
        let Some(Node::Map(stages)) = at(root, "stages") else { return };
        let steps = stages.values().filter_map(|stage| match stage {
            Node::List(steps) => Some(steps),
            _ => None,
        });
        for step in steps.flatten() {
            if let Some(Node::Map(users)) = at(step, "users") {
                users.iter().for_each(|(name, user)| self.user(Some(printable(name)), user));
            }
        }
    }

    /// kairos-agent's rule (CheckConfigForUsers): `admin` among the groups, or as the primary one.
    fn user(&mut self, name: Option<String>, user: &Node) {
        self.users.extend(name);
        let is_admin = |node: Option<&Node>| node == Some(&Node::Text("admin".to_owned()));
        self.has_admin |= is_admin(at(user, "primary_group"));
        self.has_admin |= match at(user, "groups") {
            Some(Node::List(groups)) => groups.iter().any(|group| is_admin(Some(group))),
            Some(Node::Text(groups)) => groups.split(',').any(|group| group.trim() == "admin"),
            _ => false,
        };
    }

    /// Whether Kairos 3.3 and later refuse to install this.
    #[must_use]
    pub const fn lacks_admin(&self) -> bool {
        self.installs && !self.has_admin && !self.no_users_wanted
    }

    /// The keys that were probably meant to stand under `install:`.
    #[must_use]
    pub fn outdented(&self) -> &[&'static str] {
        &self.outdented
    }

    /// One line: `installs to the largest disk, then reboots; users kairos; k3s server`.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut parts = Vec::new();
        if self.installs {
            let device = match self.device.as_deref() {
                None | Some("" | "auto") => "the largest disk",
                Some(device) => device,
            };
            let then = self.afterwards.map(|then| format!(", then {then}")).unwrap_or_default();
            parts.push(format!("installs to {device} without asking{then}"));
        } else {
            parts.push("installs nothing by itself (no `install.auto: true`)".to_owned());
        }
        match self.users.len() {
            0 => parts.push("no users".to_owned()),
            1..=5 => parts.push(format!("users {}", self.users.iter().cloned().collect::<Vec<_>>().join(", "))),
            many => parts.push(format!("{many} users")),
        }
        parts.extend(self.roles.iter().map(|role| (*role).to_owned()));
        parts.join("; ")
    }
}

fn at<'a>(node: &'a Node, path: &str) -> Option<&'a Node> {
    node.lookup(path.split('.'))
}

fn is_true(node: &Node, path: &str) -> bool {
    matches!(at(node, path), Some(Node::Text(text)) if text.eq_ignore_ascii_case("true"))
}

fn text(node: &Node) -> Option<String> {
    match node {
        Node::Text(text) => Some(printable(text)),
        _ => None,
    }
}

/// A cloud config from a URL must not drive the operator's terminal.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(yaml: &str) -> String {
        survey(yaml.as_bytes()).unwrap().summary()
    }

    #[test]
    fn what_it_will_do_in_one_line() {
        for (yaml, wanted) in [
            (
                "install: {auto: true, device: auto, reboot: true}\nusers:\n- name: kairos\n  passwd: x\n",
                "installs to the largest disk without asking, then reboots; users kairos",
            ),
            (
                "install:\n  auto: true\n  device: /dev/vda\n  poweroff: true\nk3s: {enabled: true}\n",
                "installs to /dev/vda without asking, then powers off; no users; k3s server",
            ),
            (
                "stages:\n  initramfs:\n  - users: {b: {passwd: x}, a: {}}\n  boot: x\nk3s-agent: {enabled: true}\np2p: {x: y}",
                "installs nothing by itself (no `install.auto: true`); users a, b; k3s agent; p2p mesh",
            ),
            (
                "users: [1, {name: [x]}, {name: \"\\e[31mx\"}]",
                "installs nothing by itself (no `install.auto: true`); users [31mx",
            ),
            ("", "installs nothing by itself (no `install.auto: true`); no users"),
        ] {
            assert_eq!(summary(yaml), wanted);
        }
    }

    #[test]
    fn an_installation_needs_an_admin() {
        for (rest, lacks) in [
            ("", true),
            ("users: [{name: a, groups: [wheel]}]", true),
            ("users: [{name: a, groups: [wheel, admin]}]", false),
            ("users: [{name: a, groups: 'wheel, admin'}]", false),
            ("users: [{name: a, primary_group: admin}]", false),
            ("stages: {boot: [{users: {a: {groups: [admin]}}}]}", false),
        ] {
            let yaml = format!("install: {{auto: true}}\n{rest}");
            assert_eq!(survey(yaml.as_bytes()).unwrap().lacks_admin(), lacks, "{rest}");
        }
        assert!(!survey(b"install: {auto: true, nousers: true}").unwrap().lacks_admin());
        assert!(!survey(b"install: {auto: false}").unwrap().lacks_admin());
    }

    #[test]
    fn lost_indentation_is_seen() {
        let survey = survey(b"install:\nauto: true\ndevice: auto\nreboot: true\n").unwrap();
        assert_eq!(survey.outdented(), ["auto", "device", "reboot"]);
        assert!(super::survey(b"install:\n  auto: true\n").unwrap().outdented().is_empty());
    }

    #[test]
    fn what_is_not_a_cloud_config_says_why_in_one_line() {
        for (yaml, reason) in [("- a", "it is a list, not a group of keys"), ("a: [", "did not find expected node")] {
            let error = survey(yaml.as_bytes()).unwrap_err();
            assert!(error.contains(reason) && error.lines().count() == 1, "{error}");
        }
    }
}
