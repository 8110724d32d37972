//! Which methods there are, and how each answers.

use super::files::VmCopy;
use super::forward::VmForward;
use super::images::*;
use super::inspect::*;
use super::life::*;
use super::notice::*;
use super::operations::*;
use super::request::*;
use super::set::VmSet;
use super::view::*;
use super::{Event, SshView, Version, VmSsh};
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
    /// What it answers with: for [`Shape::Json`] the body, else the unit of the stream.
    type Reply: Serialize + DeserializeOwned + Send;
}

macro_rules! methods {
    ($($name:literal $shape:ident $request:ty => $reply:ty;)*) => {
        $(impl Method for $request {
            const NAME: &'static str = $name;
            const SHAPE: Shape = Shape::$shape;
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
    "ping" Json Ping => Empty;
    "version" Json GetVersion => Version;
    "daemon.status" Json DaemonStatus => DaemonView;
    "shutdown" Json Shutdown => ShutdownView;
    "vm.create" Events VmCreate => Event;
    "vm.run" Frames VmRun => Event;
    "vm.exec" Frames VmExec => Event;
    "vm.attach" Frames VmAttach => Event;
    "vm.copy" Frames VmCopy => Event;
    "vm.forward" Frames VmForward => Event;
    "vm.ssh" Json VmSsh => SshView;
    "vm.list" Json VmList => Vec<VmView>;
    "vm.show" Json VmShow => VmDetail;
    "vm.start" Events VmStart => Event;
    "vm.stop" Json VmStop => VmView;
    "vm.restart" Events VmRestart => Event;
    "vm.wait" Json VmWait => WaitView;
    "vm.rename" Json VmRename => VmView;
    "vm.prune" Json VmPrune => Pruned;
    "vm.kill" Json VmKill => VmView;
    "vm.set" Json VmSet => VmView;
    "vm.delete" Json VmDelete => Deleted;
    "vm.logs" Json VmLogs => LogText;
    "vm.health" Json VmHealth => HealthView;
    "vm.ports" Json VmPorts => PortsView;
    "vm.stats" Json VmStats => StatsView;
    "image.import" Upload ImageImport => Event;
    "image.list" Json ImageList => Vec<ImageView>;
    "image.show" Json ImageShow => ImageView;
    "image.delete" Json ImageDelete => ImageDeleted;
    "recover" Json Recover => RecoverView;
    "operation.list" Json OperationList => Vec<OperationView>;
    "operation.show" Json OperationShow => OperationView;
    "operation.watch" Events OperationWatch => Event;
    "operation.cancel" Json OperationCancel => OperationView;
    "events" Notices Events => Notice;
}
