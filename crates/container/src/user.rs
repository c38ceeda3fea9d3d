//! Who an instance runs as: names of users and groups resolved by the image's own files.

/// A user as numbers, inside the instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Further groups.
    pub(crate) groups: Vec<u32>,
    /// The home directory, if the image knows one.
    pub(crate) home: Option<String>,
}

/// Ids an instance can have: its user namespace maps this many.
pub(crate) const IDS: u32 = 65_536;

/// Why a user could not be resolved.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UserError {
    #[error("user `{0}` is not in the image's /etc/passwd; name one that is, or use a number")]
    NoUser(String),
    #[error("group `{0}` is not in the image's /etc/group; name one that is, or use a number")]
    NoGroup(String),
    #[error("`{0}` is out of range: user and group numbers go from 0 to 65535")]
    OutOfRange(String),
}

/// Resolves `user`, `uid`, `user:group` or `uid:gid` (OCI image spec, "User"); empty is root.
pub(crate) fn resolve(text: &str, passwd: &str, group: &str) -> Result<User, UserError> {
    let (user, group_name) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|g| !g.is_empty())),
        None => (text, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let entry = find(passwd, |f| f[0] == user).or_else(|| find(passwd, |f| f.get(2) == Some(&user)));
    let number = number(user)?;
    let (uid, own_gid, home) = match (&entry, number) {
        (Some(f), _) => {
            (column(f, 2)?, column(f, 3)?, f.get(5).map(|h| (*h).to_owned()).filter(|h| h.starts_with('/')))
        }
        (None, Some(uid)) => (uid, 0, None),
        (None, None) => return Err(UserError::NoUser(user.to_owned())),
    };
    let (gid, groups) = match group_name {
        Some(name) => (group_number(name, group)?, Vec::new()),
        None => (own_gid, entry.map_or(Ok(Vec::new()), |f| memberships(f[0], own_gid, group))?),
    };
    Ok(User { uid, gid, groups, home })
}

fn group_number(name: &str, group: &str) -> Result<u32, UserError> {
    match (find(group, |f| f[0] == name), number(name)?) {
        (Some(f), _) => column(&f, 2),
        (None, Some(gid)) => Ok(gid),
        (None, None) => Err(UserError::NoGroup(name.to_owned())),
    }
}

fn memberships(user: &str, own_gid: u32, group: &str) -> Result<Vec<u32>, UserError> {
    let member = |f: &Vec<&str>| f.get(3).is_some_and(|m| m.split(',').any(|n| n == user));
    let mut groups = lines(group).filter(member).map(|f| column(&f, 2)).collect::<Result<Vec<_>, _>>()?;
    groups.retain(|g| *g != own_gid);
    groups.sort_unstable();
    groups.dedup();
    Ok(groups)
}

/// Reads a number: `None` if the text is not one, an error if the namespace does not map it.
fn number(text: &str) -> Result<Option<u32>, UserError> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    let out = || UserError::OutOfRange(text.to_owned());
    text.parse().ok().filter(|n| *n < IDS).map(Some).ok_or_else(out)
}

fn column(fields: &[&str], index: usize) -> Result<u32, UserError> {
    let text = fields.get(index).copied().unwrap_or_default();
    number(text)?.ok_or_else(|| UserError::OutOfRange(text.to_owned()))
}

fn lines(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().filter(|l| !l.is_empty() && !l.starts_with('#')).map(|l| l.split(':').collect())
}

fn find(text: &str, wanted: impl Fn(&Vec<&str>) -> bool) -> Option<Vec<&str>> {
    lines(text).find(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nwww:x:33:34::/var/www:/bin/false\nbig:x:70000:1::/:\n5:x:77:78::/five:\n";
    const GROUP: &str = "root:x:0:\nwww:x:34:\nlog:x:4:www,root\nssl:x:101:www\n";

    #[test]
    fn users_are_resolved_by_the_image() {
        let check = |text: &str, uid: u32, gid: u32, groups: &[u32]| {
            let user = resolve(text, PASSWD, GROUP).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!((user.uid, user.gid, user.groups.as_slice()), (uid, gid, groups), "{text}");
        };
        check("", 0, 0, &[4]);
        check("root", 0, 0, &[4]);
        check("www", 33, 34, &[4, 101]);
        check("33", 33, 34, &[4, 101]);
        check("www:log", 33, 4, &[]);
        check("www:", 33, 34, &[4, 101]);
        check("1000", 1000, 0, &[]);
        check("1000:1001", 1000, 1001, &[]);
        check("5", 77, 78, &[]);
    }

    #[test]
    fn what_can_not_be_mapped_is_refused() {
        let check = |text: &str, error: UserError| assert_eq!(resolve(text, PASSWD, GROUP), Err(error), "{text}");
        check("nobody", UserError::NoUser("nobody".into()));
        check("www:wheel", UserError::NoGroup("wheel".into()));
        check("65536", UserError::OutOfRange("65536".into()));
        check("4294967296", UserError::OutOfRange("4294967296".into()));
        check("0:99999999999", UserError::OutOfRange("99999999999".into()));
        check("big", UserError::OutOfRange("70000".into()));
    }
}
