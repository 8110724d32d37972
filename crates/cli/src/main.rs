//! `banger`: the command line. One file per verb in `verbs/`, one renderer, one place that turns
//! failures into text and exit status.

mod args;
mod complete;
mod connection;
mod copy;
mod credentials;
mod failure;
mod filter;
mod log;
mod meter;
mod output;
mod pace;
mod progress;
mod render;
mod signals;
mod spawn;
mod ssh;
mod stream;
mod terminal;
mod time;
mod verbs;

use args::{
    Cli, Command, ConfigCommand, DaemonCommand, ImageCommand, InternalCommand, OperationCommand,
    VmCommand,
};
use clap::{CommandFactory, Parser};
use clap_complete::CompleteEnv;
use failure::Failure;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Ends the process if a shell asks for candidates.
    CompleteEnv::with_factory(Cli::command)
        .var(complete::VARIABLE)
        .complete();
    // clap ends the process itself for --help, --version and bad usage (status 2).
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            return Failure::new("cannot start the event loop")
                .caused_by(&error)
                .report();
        }
    };
    let outcome = runtime.block_on(dispatch(cli.command));
    // A thread may still wait for the terminal's next key; nobody waits for it.
    runtime.shutdown_background();
    outcome.unwrap_or_else(|failure| failure.report())
}

async fn dispatch(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Vm(VmCommand::Run(args)) | Command::Run(args) => verbs::run::run(args).await,
        Command::Vm(VmCommand::Create(args)) => verbs::create::create(args).await,
        Command::Vm(VmCommand::List(args)) => verbs::list::list(args, false).await,
        Command::Ps(args) => verbs::list::list(args, true).await,
        Command::Vm(VmCommand::Show(args)) => verbs::show::show(args).await,
        Command::Vm(VmCommand::Exec(args)) => verbs::exec::exec(args).await,
        Command::Vm(VmCommand::Ssh(args)) => verbs::ssh::ssh(args).await,
        Command::Vm(VmCommand::Cp(args)) => verbs::cp::cp(args).await,
        Command::Vm(VmCommand::Start(args)) => verbs::lifecycle::start(args).await,
        Command::Vm(VmCommand::Stop(args)) => verbs::lifecycle::stop(args).await,
        Command::Vm(VmCommand::Restart(args)) => verbs::lifecycle::restart(args).await,
        Command::Vm(VmCommand::Wait(args)) => verbs::wait::wait(args).await,
        Command::Vm(VmCommand::Rename(args)) => verbs::rename::rename(args).await,
        Command::Vm(VmCommand::Prune(args)) => verbs::prune::prune(args).await,
        Command::Vm(VmCommand::Kill(args)) => verbs::lifecycle::kill(args).await,
        Command::Vm(VmCommand::Set(args)) => verbs::set::set(args).await,
        Command::Vm(VmCommand::Delete(args)) => verbs::lifecycle::delete(args).await,
        Command::Vm(VmCommand::Logs(args)) => verbs::logs::logs(args).await,
        Command::Vm(VmCommand::Health(args)) => verbs::health::health(args).await,
        Command::Vm(VmCommand::Ports(args)) => verbs::ports::ports(args).await,
        Command::Vm(VmCommand::Stats(args)) => verbs::stats::stats(args).await,
        Command::Image(ImageCommand::Import(args)) => verbs::import::import(args).await,
        Command::Image(ImageCommand::Pull(args)) => verbs::pull::pull(args).await,
        Command::Image(ImageCommand::List(args)) => verbs::image::list(args).await,
        Command::Image(ImageCommand::Show(args)) => verbs::image::show(args).await,
        Command::Image(ImageCommand::History(args)) => verbs::image_history::history(args).await,
        Command::Image(ImageCommand::Build(args)) => verbs::register::build(args).await,
        Command::Image(ImageCommand::Register(args)) => verbs::register::register(args).await,
        Command::Image(ImageCommand::Promote(args)) => verbs::register::promote(args).await,
        Command::Image(ImageCommand::Export(args)) => verbs::export::export(args).await,
        Command::Image(ImageCommand::Bundle(args)) => verbs::export::bundle(args).await,
        Command::Image(ImageCommand::Prune(args)) => verbs::image_prune::prune(args).await,
        Command::Image(ImageCommand::Delete(args)) => verbs::image::delete(args).await,
        Command::Image(ImageCommand::Set(args)) => verbs::kernel::set_image(args).await,
        Command::Kernel(command) => verbs::kernel::kernel(command).await,
        Command::Operation(OperationCommand::List(args)) => verbs::operation::list(args).await,
        Command::Operation(OperationCommand::Show(args)) => verbs::operation::show(args).await,
        Command::Operation(OperationCommand::Watch(args)) => verbs::operation::watch(args).await,
        Command::Operation(OperationCommand::Cancel(args)) => verbs::operation::cancel(args).await,
        Command::Events(args) => verbs::events::events(args).await,
        Command::Daemon(DaemonCommand::Status(args)) => verbs::daemon::status(args).await,
        Command::Daemon(DaemonCommand::Stop) => verbs::daemon::stop().await,
        Command::Config(ConfigCommand::Show(args)) => verbs::config::show(args),
        Command::Config(ConfigCommand::Path) => verbs::config::path(),
        Command::Config(ConfigCommand::Check(args)) => verbs::config::check(args),
        Command::Config(ConfigCommand::Schema) => verbs::config::print_schema(),
        Command::Doctor(args) => verbs::doctor::doctor(args).await,
        Command::Daemon(DaemonCommand::Logs(args)) => verbs::daemon_logs::logs(args).await,
        Command::Daemon(DaemonCommand::Metrics) => verbs::daemon::metrics().await,
        Command::SshConfig(args) => verbs::ssh::ssh_config(&args),
        Command::Recover(args) => verbs::recover::recover(args).await,
        Command::Internal(InternalCommand::Connect(args)) => verbs::connect::connect(args).await,
        Command::Version(args) => verbs::version::version(args).await,
        Command::Completion { shell } => verbs::completion::completion(shell),
        Command::Internal(InternalCommand::Reference) => verbs::reference::reference(),
        Command::Internal(InternalCommand::Man { dir }) => verbs::reference::man(&dir),
    }
}
