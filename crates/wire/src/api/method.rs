//! Which methods there are, and how each answers.

use super::files::VmCopy;
use super::forward::VmForward;
use super::image_life::*;
use super::images::*;
use super::inspect::*;
use super::kernels::*;
use super::life::*;
use super::notice::*;
use super::operations::*;
use super::request::*;
use super::set::VmSet;
use super::view::*;
use super::{Event, ImagePull, SshView, Version, VmSsh};
use serde::{Serialize, de::DeserializeOwned};

/// How a method answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One JSON object.
    Json,
    /// A stream of [`Event`]s, one JSON object per line.
    Events,
    /// As [`Shape::Events`], while the body of the request, which is data, still comes. The request itself is in the
    /// header [`super::REQUEST_HEADER`].
    Upload,
    /// A stream of [`Notice`]s without an end, one JSON object per line.
    Notices,
    /// `101`, then frames ([`super::Frame`]).
    Frames,
}

/// A method of the API; implemented by its request.
pub trait Method: Serialize + DeserializeOwned + Send + 'static {
    /// Name in the path.
    const NAME: &'static str;
    /// How it answers.
    const SHAPE: Shape;
    /// Whether it only tells: asked twice it changes nothing more than asked once.
    const READS: bool;
    /// What it answers with: for [`Shape::Json`] the body, else the unit of the stream.
    type Reply: Serialize + DeserializeOwned + Send;
}

/// What a method does to the daemon's world.
enum Kind {
    /// It tells.
    Read,
    /// It changes something.
    Act,
}

impl Kind {
    const fn reads(self) -> bool {
        matches!(self, Kind::Read)
    }
}

macro_rules! methods {
    ($($name:literal $shape:ident $kind:ident $request:ty => $reply:ty;)*) => {
        $(impl Method for $request {
            const NAME: &'static str = $name;
            const SHAPE: Shape = Shape::$shape;
            const READS: bool = Kind::$kind.reads();
            type Reply = $reply;
        })*

        /// Every method and how it answers; the daemon's dispatch is tested against it.
        pub const METHODS: &[(&str, Shape)] = &[$(($name, Shape::$shape)),*];

        /// The schemas of every method's request and reply.
        #[cfg(feature = "schema")]
        pub(super) fn schemas(
            requests: &mut schemars::SchemaGenerator,
            replies: &mut schemars::SchemaGenerator,
        ) -> Vec<super::schema::MethodSchema> {
            vec![$(super::schema::MethodSchema {
                name: $name,
                shape: Shape::$shape,
                request: requests.subschema_for::<$request>(),
                reply: replies.subschema_for::<$reply>(),
            }),*]
        }
    };
}

methods! {
    "ping" Json Read Ping => Empty;
    "version" Json Read GetVersion => Version;
    "daemon.status" Json Read DaemonStatus => DaemonView;
    "shutdown" Json Act Shutdown => ShutdownView;
    "vm.create" Events Act VmCreate => Event;
    "vm.run" Frames Act VmRun => Event;
    "vm.exec" Frames Act VmExec => Event;
    "vm.attach" Frames Act VmAttach => Event;
    "vm.copy" Frames Act VmCopy => Event;
    "vm.forward" Frames Act VmForward => Event;
    "vm.ssh" Json Read VmSsh => SshView;
    "vm.list" Json Read VmList => Vec<VmView>;
    "vm.show" Json Read VmShow => VmDetail;
    "vm.start" Events Act VmStart => Event;
    "vm.stop" Json Act VmStop => VmView;
    "vm.restart" Events Act VmRestart => Event;
    "vm.wait" Json Read VmWait => WaitView;
    "vm.rename" Json Act VmRename => VmView;
    "vm.prune" Json Act VmPrune => Pruned;
    "vm.kill" Json Act VmKill => VmView;
    "vm.set" Json Act VmSet => VmView;
    "vm.delete" Json Act VmDelete => Deleted;
    "vm.logs" Json Read VmLogs => LogText;
    "vm.health" Json Read VmHealth => HealthView;
    "vm.ports" Json Read VmPorts => PortsView;
    "vm.stats" Json Read VmStats => StatsView;
    "image.import" Upload Act ImageImport => Event;
    "image.pull" Events Act ImagePull => Event;
    "image.build" Events Act ImageBuild => Event;
    "image.register" Events Act ImageRegister => Event;
    "image.promote" Events Act ImagePromote => Event;
    "image.list" Json Read ImageList => Vec<ImageView>;
    "image.show" Json Read ImageShow => ImageView;
    "image.set" Json Act ImageSet => ImageView;
    "image.delete" Json Act ImageDelete => ImageDeleted;
    "image.history" Json Read ImageHistory => Vec<HistoryView>;
    "image.catalog" Json Read ImageCatalog => Vec<CatalogView>;
    "image.export" Frames Read ImageExport => Event;
    "blob.prune" Json Act BlobPrune => Vec<BlobView>;
    "kernel.import" Upload Act KernelImport => Event;
    "kernel.pull" Events Act KernelPull => Event;
    "kernel.build" Events Act KernelBuild => Event;
    "kernel.list" Json Read KernelList => Vec<KernelView>;
    "kernel.available" Json Read KernelAvailable => Vec<KernelOffer>;
    "kernel.show" Json Read KernelShow => KernelView;
    "kernel.delete" Json Act KernelDelete => KernelDeleted;
    "recover" Json Act Recover => RecoverView;
    "operation.list" Json Read OperationList => Vec<OperationView>;
    "operation.show" Json Read OperationShow => OperationView;
    "operation.watch" Events Read OperationWatch => Event;
    "operation.cancel" Json Act OperationCancel => OperationView;
    "events" Notices Read Events => Notice;
}
