//! From a request to a VM whose guest runs commands.

use super::drive::{Driven, How, unasked};
use super::preflight::{self, Wanted};
use super::publish::{exposed, reserve};
use super::ready::FirstCommand;
use super::shape::{self, Sized};
use super::{VmService, name, request_error, run_as};
use crate::catalogue::Pinned;
use crate::ops::{self, Operation, Why};
use banger_config::builtin;
use banger_converge::{Failure, Outcome, request};
use banger_image::Manifest;
use banger_model::spec::{Origin, root_disk};
use banger_model::{ByteSize, Phase, PublishedPort, RootDriver, Vm, VmId, VmName, VmSpec};
use banger_vmm::boot::pins::PinnedKernel;
use banger_wire::api::{ApiError, Code, Command, Event, SpecValue, VmShape, VmView};
use banger_wire::guest::{ExecRequest, Token, hex};
use std::{net::TcpListener, path::Path, sync::Arc};

type Result<T> = std::result::Result<T, ApiError>;

/// How often another made-up name is tried when one is taken.
const NAME_TRIES: usize = 8;

impl VmService {
    /// Refuses, before anything exists, what cannot become a VM here, for every reason there is (R-SVC-8).
    ///
    /// # Errors
    /// All that is wrong or missing.
    pub async fn check(
        self: &Arc<Self>,
        wanted: &VmShape,
        command: Option<&Command>,
    ) -> Result<()> {
        self.core.writable()?;
        let checks = preflight::of_create(Wanted {
            command,
            name: wanted.name.as_ref(),
            image: self.image_name(wanted).0,
            kernel: wanted.kernel.clone(),
            sized: self.sized(wanted),
            drivers: self.config.drivers.of_new_vm(),
            ports: wanted.ports.clone(),
            force: wanted.force,
        });
        self.preflight(checks).await
    }

    fn sized(&self, wanted: &VmShape) -> Sized {
        shape::decide(wanted, &self.config.vm_defaults, self.host_size)
    }

    fn image_name(&self, wanted: &VmShape) -> (String, Origin) {
        match (&wanted.image, &self.config.default_image_name) {
            (Some(name), _) => (name.clone(), Origin::Flag),
            (None, Some(name)) => (name.clone(), Origin::Config),
            (None, None) => (builtin::IMAGE.to_owned(), Origin::Builtin),
        }
    }

    /// Makes a VM and boots it; returns when its guest runs commands, `first` being one of them. Failed or cancelled,
    /// nothing is left of it.
    ///
    /// # Errors
    /// Refused, failed, cancelled, or another request decided otherwise.
    pub async fn create(
        self: &Arc<Self>,
        op: &Operation,
        wanted: &VmShape,
        remove_on_exit: bool,
        first: Option<&FirstCommand>,
    ) -> Result<VmView> {
        self.check(wanted, None).await?;
        // Kept until the VM has them: an image may take minutes to be made.
        let ports = reserve(&wanted.ports)?;
        let sized = self.sized(wanted);
        let vm = self
            .reserve(op, wanted, sized, remove_on_exit, ports, first)
            .await?;
        tracing::info!(vm = %vm.id, name = %vm.name, "created");
        self.boot(op, vm.id, first)
            .await
            .map_err(|failed| failed.of_create(&vm.name))?;
        self.view(vm.id).await
    }

    /// Holds new VMs and starts back. Recovery takes what is coming up for left behind by a daemon that died, and undoes it.
    ///
    /// # Errors
    /// Some VM is coming up.
    pub async fn nothing_comes_up(&self) -> Result<tokio::sync::MutexGuard<'_, ()>> {
        let quiet = self.create_lock.lock().await;
        // Without a database nothing was accepted.
        let rows = self.rows().await.unwrap_or_default();
        let coming = |vm: &&Vm| matches!(vm.phase, Phase::Creating | Phase::Starting);
        match rows.iter().find(coming) {
            None => Ok(quiet),
            Some(vm) => Err(ApiError::new(
                Code::Conflict,
                format!("VM '{}' is coming up; recovery would undo that", vm.name),
            )
            .hint("when banger vm list says that it runs: banger recover")),
        }
    }

    /// Name, leases and row, under the create lock.
    async fn name_and_row(
        &self,
        wanted: &VmShape,
        id: VmId,
        owner_uid: u32,
        spec: &VmSpec,
    ) -> Result<request::Accepted> {
        let _creating = self.create_lock.lock().await;
        let mut tries = 0;
        loop {
            let name = match &wanted.name {
                Some(name) => name.clone(),
                None => name::made_up(ops::random()?).ok_or_else(|| {
                    ApiError::new(Code::OperationFailed, "no name could be made up")
                })?,
            };
            let new = request::NewVm {
                id,
                name,
                owner_uid,
                spec: spec.clone(),
            };
            let (memory, host) = (spec.memory, self.host_size);
            let force = wanted.force;
            let made = self.core.blocking(move |core| {
                // Looked at before, but others may have been promised it while the image was made.
                if !force {
                    preflight::unpromised(core, memory, host)?;
                }
                Ok(request::create(&core.env(), new))
            });
            tries += 1;
            match made.await.flatten()? {
                Err(request::RequestError::AlreadyExists(_))
                    if wanted.name.is_none() && tries < NAME_TRIES => {}
                made => return made.map_err(|error| request_error(&error)),
            }
        }
    }

    /// Image, kernel and templates first, because they may take minutes; then the row.
    async fn reserve(
        self: &Arc<Self>,
        op: &Operation,
        wanted: &VmShape,
        sized: Sized,
        remove_on_exit: bool,
        ports: Vec<(PublishedPort, TcpListener)>,
        first: Option<&FirstCommand>,
    ) -> Result<Vm> {
        // The image and the kernel stay pinned until the row is there.
        let provided = self.provide(op, wanted, &sized, remove_on_exit, first);
        let (mut spec, kernel_origin, _pinned) = provided.await?;
        spec.ports = ports.iter().map(|(port, _)| *port).collect();
        let id = VmId::from_bytes(ops::random()?);
        let owner_uid = rustix::process::geteuid().as_raw();
        // The token is in place before anyone can learn of the VM: a delete that comes early fires it.
        let entry = self.set.entry(id);
        entry.take_over(&op.cancel);
        entry.ports.put(ports);
        let accepted = self
            .name_and_row(wanted, id, owner_uid, &spec)
            .await
            .inspect_err(|_| self.set.forget(id))?;
        let vm = self.row(accepted.id).await?.ok_or_else(gone)?;
        op.about(&vm);
        op.tell(Event::Accepted {
            op_id: op.id,
            id: vm.id,
            name: vm.name.clone(),
        });
        let mut values = vec![
            SpecValue {
                key: "image".to_owned(),
                value: vm.spec.image.clone(),
                origin: self.image_name(wanted).1,
            },
            SpecValue {
                key: "kernel".to_owned(),
                value: vm.spec.kernel.clone(),
                origin: kernel_origin,
            },
        ];
        values.extend(wanted.init.as_ref().map(|init| SpecValue {
            key: "init".to_owned(),
            value: init.to_string(),
            origin: Origin::Flag,
        }));
        values.extend(sized.told);
        values.extend(vm.spec.ports.iter().map(|port| SpecValue {
            key: "port".to_owned(),
            value: port.to_string(),
            origin: Origin::Flag,
        }));
        op.tell(Event::Spec { values });
        if wanted.nat == Some(true) && vm.spec.nat {
            op.tell(super::nat::exposed(&vm));
        }
        if let Some(warning) = exposed(&vm.spec.ports) {
            op.tell(warning);
        }
        Ok(vm)
    }

    async fn provide(
        self: &Arc<Self>,
        op: &Operation,
        wanted: &VmShape,
        sized: &Sized,
        remove_on_exit: bool,
        first: Option<&FirstCommand>,
    ) -> Result<(VmSpec, Origin, (Pinned, PinnedKernel))> {
        let token = Token::random().map_err(|error| {
            ApiError::new(Code::OperationFailed, "the system gives no random numbers")
                .caused_by(&error)
        })?;
        let image_name = self.image_name(wanted).0;
        let named = wanted.kernel.clone();
        let (overlay_size, disk_size) = (sized.overlay_size, sized.disk_size);
        let drivers = self.config.drivers.of_new_vm();
        let service = Arc::clone(self);
        let operation = self.registry.get(op.id).ok_or_else(gone)?;
        let command = first.map(FirstCommand::command).cloned();
        type Pins = (Pinned, PinnedKernel);
        type Made = (Manifest, Pins, (String, Origin), Option<ExecRequest>);
        let (image, pinned, (kernel, kernel_origin), request): Made = self
            .core
            .lasting(move |core| {
                let images = service.peers.images()?;
                core.recipes
                    .machine()
                    .map_err(|e| ApiError::of(Code::Precondition, &e))?;
                let (image, pinned) = images.image(&image_name, &operation)?;
                let config = image.config.as_ref();
                let command = command.map(|command| run_as::decide(command, config));
                let request = command.transpose()?;
                let decided = match named {
                    Some(named) => (named, Origin::Flag),
                    None => images.kernel_for(&image.id),
                };
                let (kernel, reads) = images.kernel(&decided.0, &operation)?;
                match drivers.root {
                    RootDriver::Overlay => images.overlay_template(overlay_size, &operation)?,
                    RootDriver::Reflink => {
                        let size = root_disk(ByteSize(image.size), overlay_size);
                        images.root_template(&image, size, &operation)?;
                    }
                    RootDriver::DmSnapshot => {}
                }
                images.work_template(&image, disk_size, &operation)?;
                core.recipes
                    .initramfs_base(&kernel)
                    .map_err(|e| ApiError::of(Code::OperationFailed, &e))?;
                Ok::<_, ApiError>((image, (pinned, reads), decided, request))
            })
            .await??;
        if let Some(why) = op.cancel.why() {
            return Err(why.error());
        }
        if let (Some(first), Some(request)) = (first, request) {
            first.decided(request);
        }
        let spec = VmSpec {
            image: image.name,
            image_id: image.id,
            image_size: ByteSize(image.size),
            image_config: image.config,
            kernel,
            vcpus: sized.vcpus,
            memory: sized.memory,
            overlay_size,
            disk_size,
            nat: sized.nat,
            ports: Vec::new(),
            remove_on_exit,
            init: wanted.init.clone().unwrap_or_default(),
            drivers,
            channel_token: hex::encode(&token.0),
        };
        Ok((spec, kernel_origin, pinned))
    }

    /// Drives a VM whose goal is *running* until its guest runs commands; cancelled, it is undone first.
    pub(super) async fn boot(
        self: &Arc<Self>,
        op: &Operation,
        id: VmId,
        first: Option<&FirstCommand>,
    ) -> std::result::Result<(), BootFailed> {
        op.stage("boot", "booting");
        let how = How {
            operation: Some(op),
            graceful: false,
            first,
            ..How::new(&op.cancel)
        };
        match self.drive(id, how).await.map_err(BootFailed::Api)? {
            Driven::Settled(Outcome::Done(vm)) if vm.phase == Phase::Running => {
                self.watch(vm.id);
                Ok(())
            }
            Driven::Settled(Outcome::Done(_) | Outcome::Gone) => Err(BootFailed::Superseded),
            Driven::Cancelled(Why::Superseded) => {
                // Whoever came drives it on, unless they were done before our goal was written: then nobody does.
                self.retry_later(id);
                Err(BootFailed::Superseded)
            }
            Driven::Settled(Outcome::RolledBack { cause, kept_logs }) => {
                self.set.entry(id).unlink();
                if kept_logs.is_some() {
                    self.trim_failed().await;
                }
                Err(BootFailed::RolledBack(cause, kept_logs))
            }
            Driven::Settled(Outcome::Fenced { cause, undo }) => {
                self.set.entry(id).unlink();
                Err(BootFailed::Fenced(cause, undo))
            }
            Driven::Settled(Outcome::Unfinished { failures }) => {
                self.retry_later(id);
                Err(BootFailed::Unfinished(failures))
            }
            Driven::Cancelled(why) => {
                self.undo(id).await;
                Err(BootFailed::Cancelled(why))
            }
        }
    }

    async fn trim_failed(&self) {
        match self.core.blocking(crate::failed::trim).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "old logs of failed operations stay"),
            Err(error) => tracing::error!(%error, "old logs of failed operations stay"),
        }
    }

    /// Undoes a cancelled create or start: by a goal like any other, so a crash in between undoes it too.
    async fn undo(self: &Arc<Self>, id: VmId) {
        let written = self
            .core
            .blocking(move |core| {
                let env = core.env();
                match request::stop(&env, id) {
                    // Never acknowledged to anyone: it goes.
                    Err(request::RequestError::Conflict { .. }) => request::delete(&env, id),
                    other => other,
                }
            })
            .await;
        match written {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::warn!(vm = %id, %error, "a cancelled operation cannot be undone now")
            }
            Err(error) => {
                tracing::error!(vm = %id, %error, "a cancelled operation cannot be undone now")
            }
        }
        self.settle(id, false, &unasked()).await;
    }
}

/// Why a VM did not come up.
#[derive(Debug)]
pub(super) enum BootFailed {
    RolledBack(Failure, Option<std::path::PathBuf>),
    Fenced(Failure, Vec<Failure>),
    Unfinished(Vec<Failure>),
    Superseded,
    Cancelled(Why),
    Api(ApiError),
}

impl BootFailed {
    /// As the error of a create.
    pub(super) fn of_create(self, name: &VmName) -> ApiError {
        self.told(format!("VM '{name}' could not be created"), name)
    }

    /// As the error of a start.
    pub(super) fn of_start(self, name: &VmName) -> ApiError {
        self.told(format!("VM '{name}' could not be started"), name)
    }

    fn told(self, message: String, name: &VmName) -> ApiError {
        let failed = |cause: &Failure| {
            ApiError::new(Code::OperationFailed, message.clone()).caused_by(cause)
        };
        match self {
            BootFailed::RolledBack(cause, kept) => match kept {
                Some(logs) => failed(&cause).hint(kept_hint(&logs)),
                None => failed(&cause).hint(format!("banger vm logs {name}")),
            },
            BootFailed::Fenced(cause, undo) => {
                let mut error = failed(&cause);
                for failure in &undo {
                    error = error.caused_by(failure);
                }
                error.hint(format!(
                    "undoing it failed too; banger vm delete --force {name} tries again"
                ))
            }
            BootFailed::Unfinished(failures) => super::unfinished(message, &failures),
            BootFailed::Superseded => ApiError::new(
                Code::Conflict,
                format!("another request for VM '{name}' was accepted meanwhile"),
            ),
            BootFailed::Cancelled(why) => why.error(),
            BootFailed::Api(error) => error,
        }
    }
}

fn kept_hint(logs: &Path) -> String {
    format!("its console and logs were kept in {}", logs.display())
}

fn gone() -> ApiError {
    ApiError::new(Code::Conflict, "it was deleted meanwhile")
}
