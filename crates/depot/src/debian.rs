//! Roots made of Debian packages, by Debian's own `mmdebstrap`: apt checks signatures and hashes, as on any machine.
//!
//! It runs in a sandbox with this machine's programs; scripts of packages never see more than the root they are for.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use basalt_model::{Debian, DebianLock, DebianPin, Digest, ImageConfig, RunInput, RunStep, Tools, digest_of};
use basalt_seam::PinnedImage;

use crate::bake::{BakeInputs, Base};
use crate::depot::Depot;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::staging::Staging;
use crate::{erofs, tree};

/// What makes a root is hashed with; counted up whenever the same would give another root than before.
const RECIPE: &str = "basalt bake debian 1";

/// Where Debian keeps its archive as it was at any time.
const SNAPSHOTS: &str = "http://snapshot.debian.org/archive/debian";

/// What the lines begin with that tell which packages a root has.
const LISTED: &str = "basalt-lock ";

/// Lists the packages of a root with version and hash, as the archive's signed index has them; then takes away what is of
/// this machine.
const LIST: &str = r#"set -e
installed=$(dpkg-query --admindir="$1/var/lib/dpkg" -W -f '${Package} ${Version} ${Architecture}\n')
for list in "$1"/var/lib/apt/lists/*_Packages*; do /usr/lib/apt/apt-helper cat-file "$list"; echo; done |
    awk -v installed="$installed" '
        BEGIN { n = split(installed, rows, "\n"); for (i = 1; i <= n; i++) wanted[rows[i]] = 1 }
        function row() { return name " " version " " arch }
        function take() { if (row() in wanted && sha != "") found[row()] = sha; name = version = arch = sha = "" }
        /^Package: / { name = $2 } /^Version: / { version = $2 } /^Architecture: / { arch = $2 } /^SHA256: / { sha = $2 }
        /^$/ { take() }
        END {
            take()
            for (one in wanted) {
                if (!(one in found)) { print "no hash is known of " one; missing = 1 }
                else print "basalt-lock " one " sha256:" found[one]
            }
            exit missing
        }'
rm -f "$1/etc/apt/preferences.d/99basalt-lock" "$1/etc/hostname" "$1/etc/resolv.conf"
"#;

impl Depot {
    /// Returns the image of a Debian root with nothing else in it.
    pub(crate) fn debian(&self, debian: &Debian, inputs: &BakeInputs<'_>, progress: &dyn Progress) -> Result<Digest> {
        let lock = match &debian.pin {
            DebianPin::Snapshot(_) => None,
            DebianPin::Lock { lock: Some(lock), .. } => Some(lock),
            DebianPin::Lock { file, lock: None } => {
                let why =
                    format!("the lock `{}` is not there; write it with `basalt image lock STACK`", file.display());
                return Err(Error::BakeSays(why));
            }
        };
        // What is locked is the same from any mirror.
        let by_snapshot = lock.is_none().then_some((&debian.mirror, &debian.pin));
        let what = (&debian.suite, &debian.packages, &debian.components);
        let key = digest_of(&(RECIPE, what, lock, by_snapshot, basalt_model::manifest::architecture()));
        let title = title(debian);
        if !inputs.fresh
            && let Some(digest) = self.remembered(&key)?
        {
            progress.step((0, 0), &title, true);
            return Ok(digest);
        }
        let staging = Staging::new(self.store())?;
        let (staging, layer, found) = self.bootstrap(debian, lock, inputs, progress, staging)?;
        if let Some(lock) = lock {
            compare(lock, &found).map_err(Error::BakeSays)?;
        }
        self.add(Base::scratch(), layer, &ImageConfig::default(), staging, &key)
    }

    /// Returns a lock of the packages that a Debian root has if it is made now.
    ///
    /// # Errors
    /// If it can't be made.
    pub fn debian_lock(&self, debian: &Debian, inputs: &BakeInputs<'_>, progress: &dyn Progress) -> Result<DebianLock> {
        let staging = Staging::new(self.store())?;
        self.bootstrap(debian, None, inputs, progress, staging).map(|(_, _, found)| found)
    }

    #[allow(clippy::type_complexity)] // The staging goes in and comes out again, for it holds the layer.
    fn bootstrap<'a>(
        &self,
        debian: &Debian,
        lock: Option<&DebianLock>,
        inputs: &BakeInputs<'_>,
        progress: &dyn Progress,
        staging: Staging<'a>,
    ) -> Result<(Staging<'a>, Option<(std::path::PathBuf, Digest, u64)>, DebianLock)> {
        let snapshot = matches!(debian.pin, DebianPin::Snapshot(_));
        let sources = sources(debian)?;
        let mut files = BTreeMap::from([("sources".to_owned(), sources), ("list".to_owned(), LIST.to_owned())]);
        let mut packages = debian.packages.clone();
        let mut command = vec![
            "mmdebstrap".to_owned(),
            "--mode=root".into(),
            "--variant=minbase".into(),
            "--format=directory".into(),
            // The sandbox has no power to mount, and has mounted what is needed.
            "--skip=check/canmount,chroot/mount".into(),
            "--customize-hook=sh /dev/basalt/list \"$1\"".into(),
        ];
        if snapshot {
            command.push("--aptopt=Acquire::Check-Valid-Until \"false\"".into());
        }
        if let Some(lock) = lock {
            files.insert("pins".to_owned(), pins(lock));
            command.push(
                "--setup-hook=mkdir -p \"$1/etc/apt/preferences.d\" && cp /dev/basalt/pins \"$1/etc/apt/preferences.d/99basalt-lock\""
                    .into(),
            );
            // Named one by one, so that apt says which version is not there any more.
            packages.extend(lock.packages.iter().map(|((name, _), (version, _))| format!("{name}={version}")));
        }
        if !packages.is_empty() {
            command.push(format!("--include={}", packages.join(",")));
        }
        command.extend([debian.suite.clone(), "/image".into(), "/dev/basalt/sources".into()]);
        let mut env = BTreeMap::from([("LANG".to_owned(), "C.UTF-8".to_owned())]);
        if let Some(proxy) = apt_proxy() {
            env.insert("http_proxy".to_owned(), proxy);
        }
        let step = RunStep {
            title: title(debian),
            command,
            env,
            network: true,
            tools: Tools::Machine,
            inputs: files.into_iter().map(|(name, text)| (name, RunInput::Text(text))).collect(),
            ..RunStep::default()
        };
        progress.step((0, 0), &step.title, false);
        let empty = erofs::write(self.store(), tree::empty())?;
        let image = PinnedImage {
            digest: digest_of(&RECIPE),
            erofs: self.store().erofs(&empty),
            objects: self.store().objects(),
            config: ImageConfig::default(),
        };
        let listed = Listed { progress, lines: Mutex::default() };
        let (staging, layer) =
            self.run_in_sandbox(&step, image, 0, inputs, &listed, staging).map_err(|e| help(e, lock))?;
        let text = listed.lines.into_inner().unwrap_or_else(PoisonError::into_inner).join("\n");
        let found = text.parse().map_err(|e| Error::BakeSays(format!("the list of packages can't be read: {e}")))?;
        Ok((staging, layer, found))
    }
}

fn title(debian: &Debian) -> String {
    format!("base debian {} ({} packages asked for)", debian.suite, debian.packages.len())
}

/// Says what people can do about it.
fn help(error: Error, lock: Option<&DebianLock>) -> Error {
    match error {
        Error::BakeRun { step, title, how, lines } => {
            let more = match lock {
                _ if how.contains("No such file") => "; it takes the Debian package `mmdebstrap`",
                Some(_) => "; a version of the lock may have left the archive: write the lock anew, or pin a snapshot",
                None => "",
            };
            Error::BakeRun { step, title, how: format!("{how}{more}"), lines }
        }
        other => other,
    }
}

/// Returns the lines of apt's list of sources.
fn sources(debian: &Debian) -> Result<String> {
    let (suite, components) = (&debian.suite, debian.components.join(" "));
    let line = |address: &str, suite: &str| format!("deb {} {suite} {components}\n", address.trim_end_matches('/'));
    match (&debian.pin, &debian.mirror) {
        (DebianPin::Snapshot(time), mirror) => {
            let mirror = mirror.as_deref().unwrap_or(SNAPSHOTS).trim_end_matches('/');
            Ok(line(&format!("{mirror}/{time}"), suite))
        }
        (DebianPin::Lock { .. }, Some(mirror)) => Ok(line(mirror, suite)),
        (DebianPin::Lock { .. }, None) => {
            let text = of_this_machine(&machine_targets()?, suite, &debian.components);
            if text.is_empty() {
                let why = format!("this machine's apt has no source for Debian `{suite}`; give the base a `mirror`");
                return Err(Error::BakeSays(why));
            }
            Ok(text)
        }
    }
}

/// Returns what this machine's apt knows: a line for each index, with address, suite and section.
#[allow(clippy::disallowed_methods)] // Asking apt is what this function is for.
fn machine_targets() -> Result<String> {
    let format = "$(REPO_URI) $(RELEASE) $(COMPONENT)";
    let output = Command::new("apt-get").args(["indextargets", "--format", format, "Created-By: Packages"]).output();
    let output = output.map_err(|e| {
        Error::BakeSays(format!("`apt-get` can't be asked for this machine's sources: {e}; give the base a `mirror`"))
    })?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Returns those sources that are of a suite, its updates and its security updates, and of the wanted sections.
fn of_this_machine(targets: &str, suite: &str, components: &[String]) -> String {
    let suites = [suite.to_owned(), format!("{suite}-updates"), format!("{suite}-security")];
    let mut lines: Vec<String> = Vec::new();
    for target in targets.lines() {
        let fields: Vec<&str> = target.split_whitespace().collect();
        let [address, release, component] = fields[..] else { continue };
        let line = format!("deb {address} {release} {component}\n");
        if suites.iter().any(|s| s == release) && components.iter().any(|c| c == component) && !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines.concat()
}

/// Returns the proxy that this machine's apt uses, if any.
#[allow(clippy::disallowed_methods)] // Asking apt is what this function is for.
fn apt_proxy() -> Option<String> {
    let output = Command::new("apt-config").args(["shell", "PROXY", "Acquire::http::Proxy"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let proxy = text.trim().strip_prefix("PROXY='")?.strip_suffix('\'')?;
    Some(proxy.to_owned()).filter(|proxy| !proxy.is_empty())
}

/// Returns apt's preferences that allow nothing but what is locked (apt_preferences(5)).
fn pins(lock: &DebianLock) -> String {
    let mut text = String::from("Package: *\nPin: release *\nPin-Priority: -1\n");
    for ((name, _), (version, _)) in &lock.packages {
        text.push_str(&format!("\nPackage: {name}\nPin: version {version}\nPin-Priority: 1001\n"));
    }
    text
}

/// Compares what a root has with what is locked.
fn compare(lock: &DebianLock, found: &DebianLock) -> std::result::Result<(), String> {
    for (name, wanted) in &lock.packages {
        match found.packages.get(name) {
            Some(found) if found == wanted => {}
            Some((version, digest)) => {
                return Err(format!(
                    "package `{}` is {version} {digest}, and the lock says {} {}",
                    name.0, wanted.0, wanted.1
                ));
            }
            None => return Err(format!("package `{}` of the lock was not installed; write the lock anew", name.0)),
        }
    }
    match found.packages.keys().find(|name| !lock.packages.contains_key(name)) {
        Some((name, _)) => Err(format!("package `{name}` is needed and not in the lock; write the lock anew")),
        None => Ok(()),
    }
}

/// Takes the list of packages out of what is written, and passes all else on.
struct Listed<'a> {
    progress: &'a dyn Progress,
    lines: Mutex<Vec<String>>,
}

impl Progress for Listed<'_> {
    fn report(&self, what: &str, done: u64, total: Option<u64>) {
        self.progress.report(what, done, total);
    }

    fn line(&self, text: &str) {
        match text.strip_prefix(LISTED) {
            Some(row) => self.lines.lock().unwrap_or_else(PoisonError::into_inner).push(row.to_owned()),
            None => self.progress.line(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(rows: &[(&str, &str)]) -> DebianLock {
        let row = |(name, version): &(&str, &str)| {
            (((*name).to_owned(), "amd64".to_owned()), ((*version).to_owned(), digest_of(version)))
        };
        DebianLock { packages: rows.iter().map(row).collect() }
    }

    #[test]
    fn sources_of_other_suites_and_sections_are_passed_over() {
        let targets = "http://a/debian/ bookworm main\nhttp://a/debian/ bookworm contrib\nhttp://a/debian/ bookworm main\n\
                       http://b/ bookworm-security main\nhttp://c/ sid main\nhttp://d/ nodistro main\n";
        let text = of_this_machine(targets, "bookworm", &["main".to_owned()]);
        assert_eq!(text, "deb http://a/debian/ bookworm main\ndeb http://b/ bookworm-security main\n");
    }

    #[test]
    fn a_root_that_is_not_as_locked_is_refused() {
        let check = |locked: &[(&str, &str)], found: &[(&str, &str)], part: &str| {
            let result = compare(&lock(locked), &lock(found));
            match (result, part) {
                (Ok(()), "") => {}
                (Err(why), part) if !part.is_empty() && why.contains(part) => {}
                (result, _) => panic!("{locked:?} {found:?}: {result:?}"),
            }
        };
        check(&[("a", "1")], &[("a", "1")], "");
        check(&[("a", "1")], &[("a", "2")], "package `a` is 2");
        check(&[("a", "1"), ("b", "1")], &[("a", "1")], "`b` of the lock was not installed");
        check(&[("a", "1")], &[("a", "1"), ("b", "1")], "`b` is needed");
    }

    #[test]
    fn pins_allow_nothing_else() {
        let text = pins(&lock(&[("a", "1:2-3")]));
        assert!(text.starts_with("Package: *\nPin: release *\nPin-Priority: -1\n"));
        assert!(text.contains("\nPackage: a\nPin: version 1:2-3\nPin-Priority: 1001\n"));
    }
}
