//! Which process holds a socket: the one walk over `/proc/*/fd`.

use super::processes;
use super::sockets::Bound;

/// Descriptors that are looked at before the walk is given up.
const MAX_DESCRIPTORS: usize = 100_000;

/// Finds the processes of sockets, which are in the order of their inodes: of several that hold one, the one with the
/// lowest number. Ends as soon as all are found; says whether the walk was given up.
pub fn find(sockets: &mut [Bound]) -> bool {
    let (mut missing, mut looked) = (sockets.len(), 0);
    for pid in processes() {
        if missing == 0 {
            break;
        }
        // A process that is gone, or not ours to look into, holds nothing we could show.
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd"));
        for descriptor in descriptors.into_iter().flatten().flatten() {
            looked += 1;
            if looked > MAX_DESCRIPTORS {
                return true;
            }
            let Ok(target) = std::fs::read_link(descriptor.path()) else {
                continue;
            };
            let Some(inode) = target.to_str().and_then(socket_inode) else {
                continue;
            };
            let found = sockets.binary_search_by(|socket| socket.inode.cmp(&inode));
            if let Some(socket) = found.ok().and_then(|at| sockets.get_mut(at))
                && socket.pid.is_none()
            {
                socket.pid = Some(pid);
                missing -= 1;
            }
        }
    }
    false
}

/// The number in `socket:[4711]`.
fn socket_inode(target: &str) -> Option<u64> {
    target
        .strip_prefix("socket:[")?
        .strip_suffix(']')?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sockets_have_the_inode_of_a_socket() {
        assert_eq!(socket_inode("socket:[4711]"), Some(4711));
        for other in [
            "pipe:[4711]",
            "socket:[]",
            "socket:[-1]",
            "socket:4711",
            "/socket:[1]",
            "",
        ] {
            assert_eq!(socket_inode(other), None, "{other}");
        }
    }
}
