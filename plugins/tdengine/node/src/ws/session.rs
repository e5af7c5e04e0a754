//! Connecting, and what a connection tells about itself and its server.

use tdengine_store::Session;
use tdengine_wire::envelope::{
    CheckServerStatusReply, Connect, GetConnectionInfo, GetCurrentDbReply, InfoReply, OptionsConnection, Request,
    VersionReply,
};

use super::Connection;
use crate::error::Fail;
use crate::reply::{Answer, Call, args};
use crate::timezone;

/// Status of a server that works, as `check_server_status` gives it.
const SERVICE_OK: i32 = 2;

impl Connection {
    pub(super) fn version(&self, call: &Call) -> Answer {
        call.json(&VersionReply { version: Some(self.shared.version.to_string()) })
    }

    pub(super) async fn connect(&self, call: &Call, request: &Request<'_>) -> Answer {
        if self.session.lock().is_some() {
            return Err(Fail::protocol("duplicate connections"));
        }
        let connect: Connect = args(request)?;
        let zone = connect.tz.clone();
        let session = match connect.bearer_token.filter(|token| !token.is_empty()) {
            Some(token) => self.shared.sign_in_by_token(&token, connect.db).await?,
            None => self.shared.sign_in(connect.user, connect.password, Some(connect.db)).await?,
        };
        let session = Session { timezone_offset_s: zone_offset(zone.as_deref())?, ..session };
        *self.session.lock() = Some(session);
        let version = self.shared.version.has_stmt2().then(|| self.shared.version.to_string());
        call.json(&VersionReply { version })
    }

    pub(super) fn current_database(&self, call: &Call) -> Answer {
        call.json(&GetCurrentDbReply { db: self.session()?.database.unwrap_or_default() })
    }

    pub(super) fn server_info(&self, call: &Call) -> Answer {
        let version = self.shared.version;
        let info = format!("ver:{version}\nbuild:embedded node for trying, developing and testing\ngitinfo:none");
        call.json(&InfoReply { info })
    }

    pub(super) fn check_server_status(&self, call: &Call) -> Answer {
        call.json(&CheckServerStatusReply { status: SERVICE_OK, details: String::new() })
    }

    /// Which user is connected (1 in newer clients); other kinds of information are empty.
    pub(super) fn connection_info(&self, call: &Call, request: &Request<'_>) -> Answer {
        let asked: GetConnectionInfo = args(request)?;
        let session = self.session()?;
        let info = match asked.info {
            0 => session.database.unwrap_or_default(),
            1 => session.user,
            _ => String::new(),
        };
        call.json(&InfoReply { info })
    }

    /// Options are accepted; only the time zone has an effect (PROTOCOL 2).
    pub(super) fn options(&self, call: &Call, request: &Request<'_>) -> Answer {
        const CLEAR: i32 = -1;
        const TIME_ZONE: i32 = 1;
        let options: OptionsConnection = args(request)?;
        for option in options.options {
            if matches!(option.option, CLEAR | TIME_ZONE) {
                let offset = zone_offset(option.value.as_deref())?;
                if let Some(session) = self.session.lock().as_mut() {
                    session.timezone_offset_s = offset;
                }
            }
        }
        call.done()
    }
}

/// Seconds east of UTC of a zone that a client named; UTC when it named none.
fn zone_offset(zone: Option<&str>) -> Result<i32, Fail> {
    match zone {
        None | Some("") => Ok(0),
        Some(zone) => timezone::offset_seconds(zone)
            .ok_or_else(|| Fail::protocol(format!("invalid timezone {zone:?}; name it as Asia/Shanghai or +08:00"))),
    }
}
