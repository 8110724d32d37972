//! Control records of Debian packages (deb-control(5)), as `apt-cache show` prints them.

/// What Debian splits `linux-image-<release>` into from Linux 7 on, where that package itself is empty.
const PARTS: [&str; 3] = ["linux-binary-", "linux-modules-", "linux-base-"];

/// The package that a control record stands for: a meta package's first dependency with this beginning, or itself.
pub(super) fn real_package(meta: &str, prefix: &str, record: &str) -> Option<String> {
    field(record, "Package")?;
    let depends = field(record, "Depends").unwrap_or_default();
    let names = depends
        .split([',', '|'])
        .filter_map(|d| d.split_whitespace().next());
    let image = names
        .map(|n| n.split(':').next().unwrap_or(n))
        .find(|n| n.starts_with(prefix));
    Some(image.unwrap_or(meta).to_owned())
}

/// The packages that a kernel's is split into, of its control record.
pub(super) fn parts(name: &str, record: &str) -> Vec<String> {
    let Some(release) = name.strip_prefix("linux-image-") else {
        return Vec::new();
    };
    let depends = field(record, "Depends").unwrap_or_default();
    let part = |one: &str| {
        let one = one.trim();
        let package = one.split([' ', ':', '(']).next().unwrap_or(one);
        let is_part = PARTS
            .iter()
            .any(|part| package.strip_prefix(part) == Some(release));
        let version = one
            .split_once("(=")
            .and_then(|(_, rest)| rest.split_once(')'));
        is_part.then(|| match version {
            Some((version, _)) => format!("{package}={}", version.trim()),
            None => package.to_owned(),
        })
    };
    let mut parts: Vec<String> = depends.split(',').filter_map(part).collect();
    // Each is one file, whether it is said once or with its version too.
    let name = |part: &String| part.split('=').next().map(str::to_owned);
    parts.sort_by_key(|part| (name(part), std::cmp::Reverse(part.len())));
    parts.dedup_by_key(|part| name(part));
    parts
}

/// A field of the first record of a control file.
pub(super) fn field<'a>(record: &'a str, name: &str) -> Option<&'a str> {
    record
        .lines()
        .take_while(|l| !l.is_empty())
        .find_map(|l| l.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    const META: &str = "Package: linux-image-cloud-amd64\nVersion: 6.1.192-2\n\
        Depends: linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)\nDescription: x\n\nPackage: other\n";

    #[test]
    fn the_package_behind_a_meta_package_is_found() {
        let real = real_package("linux-image-cloud-amd64", "linux-image-", META);
        assert_eq!(real.as_deref(), Some("linux-image-6.1.0-56-cloud-amd64"));
        let own = "Package: linux-image-6.1.0-56-cloud-amd64\nDepends: kmod, linux-base (>= 4.3~), initramfs-tools\n";
        assert_eq!(
            real_package("linux-image-6.1.0-56-cloud-amd64", "linux-image-", own).as_deref(),
            Some("linux-image-6.1.0-56-cloud-amd64")
        );
        assert_eq!(real_package("x", "linux-image-", ""), None);
        assert_eq!(field(META, "Version"), Some("6.1.192-2"));
    }

    #[test]
    fn a_kernel_may_be_split_into_packages() {
        let name = "linux-image-7.2.13+deb14-cloud-amd64";
        let record = "Package: linux-image-7.2.13+deb14-cloud-amd64\nVersion: 7.2.13-1\n\
            Depends: dracut | initramfs-tools (>= 0.120+deb8u2) | linux-initramfs-tool, \
            linux-base-7.2.13+deb14-cloud-amd64 (= 7.2.13-1), linux-base-7.2.13+deb14-amd64, \
            linux-base-7.2.13+deb14-cloud-amd64, \
            linux-binary-7.2.13+deb14-cloud-amd64 (= 7.2.13-1), linux-modules-7.2.13+deb14-cloud-amd64\n";
        assert_eq!(
            parts(name, record),
            [
                "linux-base-7.2.13+deb14-cloud-amd64=7.2.13-1",
                "linux-binary-7.2.13+deb14-cloud-amd64=7.2.13-1",
                "linux-modules-7.2.13+deb14-cloud-amd64",
            ]
        );
        assert_eq!(parts("linux-source-7.2", record), [""; 0]);
        assert_eq!(parts("linux-image-cloud-amd64", META), [""; 0]);
    }
}
