//! The examples that the help pages end with, for verbs that need no more words.

pub const PS_EXAMPLES: &str = "Examples:\n  \
  banger ps\n  \
  banger ps -q --filter image=debian";

pub const LIST_EXAMPLES: &str = "Examples:\n  \
  banger vm list\n  \
  banger vm list --filter state=stopped --filter state=error\n  \
  banger vm delete $(banger vm list -q --filter name=test-)\n  \
  banger vm list --json | jq -r '.[] | select(.memory > 1073741824).name'";

pub const SHOW_EXAMPLES: &str = "Examples:\n  \
  banger vm show dev\n  \
  banger vm show dev web --json | jq '.[].reason'";

pub const START_EXAMPLES: &str = "Examples:\n  \
  banger vm start dev\n  \
  banger vm start dev web";

pub const STOP_EXAMPLES: &str = "Examples:\n  \
  banger vm stop dev\n  \
  banger vm stop $(banger ps -q)\n\n\
The guest is asked to power off; one that has not after stop_timeout of the configuration (10 s unless\n\
set) is ended. What it wrote stays.";

pub const KILL_EXAMPLES: &str = "Examples:\n  \
  banger vm kill dev\n\n\
Waits for nothing, not even for an operation on the VM that is under way. What the guest did not\n\
write to its disks yet is lost.";

pub const DELETE_EXAMPLES: &str = "Examples:\n  \
  banger vm delete dev\n  \
  banger vm delete --force dev web        also when they run";

pub const LOGS_EXAMPLES: &str = "Examples:\n  \
  banger vm logs dev\n  \
  banger vm logs dev --vmm                what QEMU said";

pub const RECOVER_EXAMPLES: &str = "Example:\n  \
  banger recover\n\n\
Nothing is removed. A database that cannot be read is kept beside the new one.";

pub const VERSION_EXAMPLES: &str = "Examples:\n  \
  banger version\n  \
  banger version --json | jq -r .daemon.version";

pub const PULL_EXAMPLES: &str = "Examples:\n  \
  banger image pull alpine:3.20                          of Docker Hub, named alpine:3.20\n  \
  banger image pull ghcr.io/owner/app:1 --name app       of another registry; two names\n  \
  banger image pull localhost:5000/app                   of one on this machine; no TLS needed\n  \
  banger run --image alpine:3.20 -- cat /etc/os-release  pulled if it is not here\n  \
  banger image pull debian-12                            of the catalog, if it has that name\n\n\
A name without registry, path or tag is looked for in the catalog (catalog.source in the configuration) before Docker Hub; \
what comes is proven by the catalog's sha256.\n\n\
Logins are those of docker login ($DOCKER_CONFIG or ~/.docker/config.json: auths, credsStore, credHelpers). Pulled \
again, a tag that has not changed is asked for and nothing more; one that has moves, and the older image keeps its id.";

pub const IMAGE_LIST_EXAMPLES: &str = "Examples:\n  \
  banger image list\n  \
  banger image list --available                what the catalog offers\n  \
  banger image list --json | jq -r '.[].names[]'\n\n\
SIZE is the length of the file system, without what it has not written. OWN would be free without the image: blocks of its files \
that nobody shares, and the layers that a registry sent and no other image has. SHARED is what others have too: blocks \
cloned (reflinks) to or from other images, templates and disks, and layers of several images.";

pub const IMAGE_PRUNE_EXAMPLES: &str = "Examples:\n  \
  banger image prune --dry-run\n  \
  banger image prune --all --force          all that no VM uses\n\n\
Layers that a registry sent are kept for the next pull as long as an image here was made of them. What a broken pull left is \
gone on with by the next; it goes when nobody did for a day, or with --all. A pull under way keeps what it uses.";

pub const IMAGE_SHOW_EXAMPLES: &str = "Examples:\n  \
  banger image show debian\n  \
  banger image show debian --json | jq '.[].digest'\n  \
  banger image inspect app --json | jq '.[].labels'";
