//! One executor for everything that happens to a VM: a request writes a goal, a [`Convergence`]
//! observes, plans and applies until there is nothing left to do. Create, start, stop, delete,
//! rollback and recovery after a crash are all that one path.
//!
//! ```text
//! request::create|start|stop|delete ─▶ row (goal, generation)
//!                                        │
//!          Convergence::step ─▶ observe ─▶ plan::reconcile ─▶ apply one action ─┐
//!                    ▲                                                          │
//!                    └──────────────────────────────────────────────────────────┘
//! ```
//!
//! Nothing here is async and nothing waits for a guest: such a wait is a [`Step`] that returns, and
//! the driver [tells](Convergence::tell) how it went.

mod apply;
mod convergence;
mod drive;
mod env;
mod error;
mod ledger;
mod lost;
mod observe;
mod rebuild;
mod recipes;
mod recover;
pub mod request;
mod self_description;
pub mod set;
pub mod settled;
mod site;
mod sweep;
mod tree;
pub mod views;
mod whole;

pub use convergence::{Convergence, Outcome, Step, Told, Wait};
pub use drive::{Waiter, settle, settle_all};
pub use env::{Env, HandleCache, Shared};
pub use error::{Error, Failure, RecipeError};
pub use ledger::{Change, Ledger, LedgerError};
pub use lost::{Lost, lost};
pub use observe::{may_live, observe};
pub use rebuild::{Rebuilt, delete_lost, recover_database};
pub use recipes::{BootFile, Launch, Recipes};
pub use recover::{Report, recover};
pub use self_description::SelfDescription;
pub use site::{Bridge, Limits, Site};
pub use sweep::sweep_dirs;
pub use whole::whole;
