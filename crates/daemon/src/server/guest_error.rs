//! What a failed call to a guest means for whoever made it.

use banger_wire::api::{ApiError, Code};
use banger_wire::guest::{ClientError, copy::TOO_MANY};

/// What a guest was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// A command.
    Command,
    /// Files in or out.
    Copy,
    /// A connection to one of its sockets.
    Forward,
}

impl Asked {
    /// What a guest that refuses cannot do.
    const fn verb(self) -> &'static str {
        match self {
            Asked::Command => "run commands",
            Asked::Copy => "copy files",
            Asked::Forward => "make connections",
        }
    }

    /// What a lost connection cuts short.
    const fn cut(self) -> &'static str {
        match self {
            Asked::Command => "while the command ran",
            Asked::Copy => "before the copy was complete",
            Asked::Forward => "or the connection broke in it",
        }
    }
}

/// What a failed call to the guest of `vm` means for the caller: exit status 125.
pub fn guest_error(vm: &str, what: Asked, error: &ClientError) -> ApiError {
    let failed = |message| ApiError::new(Code::OperationFailed, message).caused_by(error);
    match error {
        ClientError::ConnectionLost => ended(vm, what),
        _ if error.unknown() => older_agent(vm, what.verb()),
        ClientError::Refused { status, .. } if what != Asked::Command && *status == TOO_MANY => {
            let kind = if what == Asked::Copy {
                "copies"
            } else {
                "connections"
            };
            let message = format!("the guest of VM '{vm}' takes no more {kind} now");
            ApiError::new(Code::Unavailable, message).caused_by(error)
        }
        // Its words are the system's for a connect that failed.
        ClientError::Refused { message, .. } if error.unreachable() => {
            let message = format!("cannot connect in VM '{vm}': {message}");
            ApiError::new(Code::Unavailable, message).hint(format!("banger vm ports {vm}"))
        }
        ClientError::Refused { .. } => {
            failed(format!("the guest of VM '{vm}' cannot {}", what.verb()))
                .hint(format!("banger vm logs {vm}"))
        }
        _ => failed(format!("the agent of VM '{vm}' cannot be understood")),
    }
}

fn ended(vm: &str, what: Asked) -> ApiError {
    let cut = what.cut();
    ApiError::new(
        Code::OperationFailed,
        format!("VM '{vm}' ended, or its agent did, {cut}"),
    )
    .hint(format!("banger vm logs {vm}"))
}

/// What an agent is too old for.
pub fn older_agent(vm: &str, what: &str) -> ApiError {
    ApiError::new(
        Code::Precondition,
        format!("the agent of VM '{vm}' is older than this daemon and cannot {what}"),
    )
    .hint(format!(
        "banger vm stop {vm}; banger vm start {vm}: it boots with the new one"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use banger_wire::guest::exec::UNKNOWN;

    fn refused(status: u16) -> ClientError {
        ClientError::Refused {
            status,
            message: "no".to_owned(),
        }
    }

    #[test]
    fn an_agent_without_the_method_is_older_and_the_way_out_is_told() {
        let error = guest_error("dev", Asked::Copy, &refused(UNKNOWN));
        assert_eq!(error.code, Code::Precondition);
        assert_eq!(
            error.message,
            "the agent of VM 'dev' is older than this daemon and cannot copy files"
        );
        let hint = error.hint.unwrap_or_default();
        assert!(
            hint.starts_with("banger vm stop dev; banger vm start dev"),
            "{hint}"
        );
    }

    #[test]
    fn a_guest_with_too_many_copies_is_not_broken() {
        let error = guest_error("dev", Asked::Copy, &refused(TOO_MANY));
        assert_eq!(error.code, Code::Unavailable);
        let error = guest_error("dev", Asked::Copy, &refused(500));
        assert_eq!(error.code, Code::OperationFailed);
        assert!(error.message.contains("cannot copy files"), "{error}");
    }
}
