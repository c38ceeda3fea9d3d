//! Who a file of an image belongs to: names of users and groups, by the image's own files.

/// A user and a group by number.
pub(crate) type Owner = (u32, u32);

/// The largest number of a user or group (as for the user that an image runs as).
const LARGEST_ID: u32 = i32::MAX as u32;

/// Resolves `user`, `uid`, `user:group` or `uid:gid`. A number alone is the group's number too, a name alone has the
/// user's own group. `passwd` and `group` are asked only for names.
///
/// # Errors
/// A sentence.
pub(crate) fn resolve(
    text: &str,
    passwd: impl Fn() -> Result<String, String>,
    group: impl Fn() -> Result<String, String>,
) -> Result<Owner, String> {
    let (user, named_group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|g| !g.is_empty())),
        None => (text, None),
    };
    let (uid, own_group) = match number(user)? {
        Some(uid) => (uid, uid),
        None => {
            let text = passwd()?;
            let row = row(&text, user).ok_or_else(|| format!("user `{user}` is not in the image's /etc/passwd"))?;
            (column(&row, 2)?, column(&row, 3)?)
        }
    };
    let gid = match named_group.map(|g| Ok::<_, String>((g, number(g)?))).transpose()? {
        None => own_group,
        Some((_, Some(gid))) => gid,
        Some((name, None)) => {
            let text = group()?;
            let row = row(&text, name).ok_or_else(|| format!("group `{name}` is not in the image's /etc/group"))?;
            column(&row, 2)?
        }
    };
    Ok((uid, gid))
}

fn number(text: &str) -> Result<Option<u32>, String> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    let id = text.parse().ok().filter(|id| *id <= LARGEST_ID);
    id.map(Some).ok_or_else(|| format!("`{text}` is above the largest user or group number, {LARGEST_ID}"))
}

fn row<'t>(text: &'t str, name: &str) -> Option<Vec<&'t str>> {
    text.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|row| row[0] == name && !name.is_empty())
}

fn column(row: &[&str], n: usize) -> Result<u32, String> {
    let text = row.get(n).copied().unwrap_or_default();
    number(text)?.ok_or_else(|| format!("`{}` has no number where one belongs", row.join(":")))
}

/// Who owns what nobody else is said to own.
pub(crate) const ROOT: Owner = (0, 0);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_are_resolved_by_the_image() {
        let check = |text: &str, expected: Result<Owner, &str>| {
            let passwd = || Ok("root:x:0:0::/:\nwww:x:33:34::/:\nbad:x:x:1::/:\n".to_owned());
            let found = resolve(text, passwd, || Ok("log:x:4:\n".to_owned()));
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{text}"),
                (Err(why), Err(part)) => assert!(why.contains(part), "{text}: {why}"),
                (found, _) => panic!("{text}: {found:?}"),
            }
        };
        check("www", Ok((33, 34)));
        check("www:log", Ok((33, 4)));
        check("www:", Ok((33, 34)));
        check("7", Ok((7, 7)));
        check("7:8", Ok((7, 8)));
        check("7:log", Ok((7, 4)));
        check("nobody", Err("not in the image's /etc/passwd"));
        check("www:nobody", Err("not in the image's /etc/group"));
        check("bad", Err("no number"));
        check("4294967295", Err("largest"));
        check("", Err("not in"));
    }
}
