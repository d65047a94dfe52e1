//! The state directory: private, one run at a time, and the secret behind the tokens.

use crate::limits::{STATE_LOCK_PATIENCE, STATE_SECRET_BYTES};
use crate::sys::disk::is_mount_root;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("state_dir {path} cannot be made: {error}; name another with --set state_dir=PATH")]
    Make { path: PathBuf, error: io::Error },
    #[error("state_dir {path} is not a directory; name another with --set state_dir=PATH")]
    NotADirectory { path: PathBuf },
    #[error(
        "state_dir {path} holds other things than auroraboot's; name an empty or a new directory with --set state_dir=PATH"
    )]
    NotOurs { path: PathBuf },
    #[error(
        "state_dir {path} can be written by other users, who could swap what machines boot; chmod go-w it, or name another with --set state_dir=PATH"
    )]
    Writable { path: PathBuf },
    #[error(
        "state_dir {path} belongs to user {owner}, not to this one ({user}): whoever owns it could swap what machines boot; \
         name another with --set state_dir=PATH"
    )]
    Foreign { path: PathBuf, owner: u32, user: u32 },
    #[error(
        "state_dir {path} is in use by another auroraboot; end that one, or name another with --set state_dir=PATH"
    )]
    InUse { path: PathBuf },
    #[error("cannot use {path}: {error}")]
    File { path: PathBuf, error: io::Error },
}

/// An opened state directory; the lock on it goes when this is dropped.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    _lock: File,
}

impl StateDir {
    /// Takes `path` and its lock: makes it with mode 0700 if it is not there; takes one that is only when it is this user's, closed to
    /// writers, and either empty or used by an earlier run. Its mode is never changed: it may be anybody's `/srv`.
    ///
    /// # Errors
    /// [`StateError`] says what to do in each case.
    pub fn open(path: &Path, user: u32) -> Result<Self, StateError> {
        let owned = || path.to_owned();
        let file = |error| StateError::File { path: owned(), error };
        if fs::symlink_metadata(path).is_err() {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
            made.map_err(|error| StateError::Make { path: owned(), error })?;
        }
        let itself = fs::symlink_metadata(path).map_err(file)?;
        // Links of root's lead where root wants: systemd's DynamicUser has one for each StateDirectory.
        if !(itself.is_symlink() && itself.uid() == ROOT) {
            check(path, &itself, user)?;
        }
        // What a link of this user's own leads to has to be this user's too.
        let metadata = fs::metadata(path).map_err(file)?;
        check(path, &metadata, user)?;
        if !metadata.is_dir() {
            return Err(StateError::NotADirectory { path: owned() });
        }
        if metadata.permissions().mode() & 0o022 != 0 {
            return Err(StateError::Writable { path: owned() });
        }
        let mut entries = fs::read_dir(path).map_err(file)?;
        if entries.next().is_some() && !path.join(LOCK).exists() {
            return Err(StateError::NotOurs { path: owned() });
        }
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join(LOCK))
            .map_err(file)?;
        match take(&lock) {
            Ok(()) => Ok(Self { path: owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(StateError::InUse { path: owned() }),
            Err(TryLockError::Error(error)) => Err(file(error)),
        }
    }

    /// Whether a run holds the lock at this moment.
    #[must_use]
    pub fn is_in_use(path: &Path) -> bool {
        let lock = File::open(path.join(LOCK));
        lock.is_ok_and(|lock| matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The secret that the machines' tokens derive from. It is kept, so that a machine in the middle of its boot goes on after a restart.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn secret(&self) -> Result<[u8; STATE_SECRET_BYTES], StateError> {
        let path = self.path.join("secret");
        let file_error = |error| StateError::File { path: path.clone(), error };
        let mut secret = [0; STATE_SECRET_BYTES];
        if let Ok(mut file) = File::open(&path)
            && file.read_exact(&mut secret).is_ok()
        {
            return Ok(secret);
        }
        File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut secret)).map_err(file_error)?;
        let temporary = self.path.join("secret.new");
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(file_error)?;
        file.write_all(&secret).and_then(|()| file.sync_all()).map_err(file_error)?;
        fs::rename(&temporary, &path).map_err(file_error)?;
        Ok(secret)
    }
}

/// Whether a directory has been a state directory.
///
/// # Errors
/// It cannot be told: the directory is closed to this user.
pub fn is_one(path: &Path) -> io::Result<bool> {
    match fs::metadata(path.join(LOCK)) {
        Ok(found) => Ok(found.is_file()),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Takes the lock. Whoever lists the cache has it for a moment, to see whether it is free.
fn take(lock: &File) -> Result<(), TryLockError> {
    let begun = Instant::now();
    loop {
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) if begun.elapsed() < STATE_LOCK_PATIENCE => thread::sleep(LOCK_POLL),
            taken => return taken,
        }
    }
}

const LOCK_POLL: Duration = Duration::from_millis(5);

/// Whoever owns a directory, or a link on the way to it, decides what is in it: /tmp/auroraboot may be a trap laid by another user.
fn check(path: &Path, metadata: &fs::Metadata, user: u32) -> Result<(), StateError> {
    // Only who rules this host mounts a directory there: `docker run -v $PWD/build:/tmp/auroraboot`, say.
    let is_mounted = || user == ROOT && is_mount_root(path).unwrap_or(false);
    if metadata.uid() == user || is_mounted() {
        return Ok(());
    }
    Err(StateError::Foreign { path: path.to_owned(), owner: metadata.uid(), user })
}

const ROOT: u32 = 0;

/// Held while a run uses the directory; also tells that it is one of ours.
const LOCK: &str = "lock";

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("auroraboot-state-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        path
    }

    fn owner_of(path: &Path) -> u32 {
        fs::metadata(path).unwrap().uid()
    }

    #[test]
    fn is_private_locked_and_keeps_its_secret() {
        let path = scratch("private");
        let user = owner_of(&std::env::temp_dir().join(".")).max(owner_of(Path::new("/proc/self")));
        let state = StateDir::open(&path, user).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        let secret = state.secret().unwrap();
        assert_eq!(fs::metadata(path.join("secret")).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(StateDir::open(&path, user), Err(StateError::InUse { .. })));
        drop(state);
        assert_eq!(
            StateDir::open(&path, user).unwrap().secret().unwrap(),
            secret,
            "the next start knows the old tokens"
        );
        fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn a_glance_at_the_lock_keeps_nobody_out() {
        let path = scratch("glance");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        drop(StateDir::open(&path, owner_of(&path)).unwrap());
        let lock = File::open(path.join(LOCK)).unwrap();
        lock.lock_shared().unwrap();
        thread::scope(|scope| {
            let open = scope.spawn(|| StateDir::open(&path, owner_of(&path)).map(drop));
            drop(lock);
            open.join().unwrap().unwrap();
        });
        fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn what_is_another_users_or_for_other_things_is_left_alone() {
        let path = scratch("foreign");
        fs::create_dir(&path).unwrap();
        let user = owner_of(&path);
        assert!(matches!(StateDir::open(&path, user + 1), Err(StateError::Foreign { .. })));
        fs::write(path.join("thesis.tex"), "").unwrap();
        assert!(matches!(StateDir::open(&path, user), Err(StateError::NotOurs { .. })));
        fs::remove_file(path.join("thesis.tex")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o1777)).unwrap();
        assert!(matches!(StateDir::open(&path, user), Err(StateError::Writable { .. })));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o1777, "not ours to change");
        fs::remove_dir(&path).unwrap();
    }

    #[test]
    fn an_own_link_to_an_own_directory_is_followed() {
        let (path, link) = (scratch("target"), scratch("link"));
        let _ = fs::remove_file(&link);
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        drop(StateDir::open(&link, owner_of(&path)).unwrap());
        drop(StateDir::open(&path, owner_of(&path)).unwrap());
        fs::remove_file(&link).unwrap();
        fs::write(&link, "").unwrap();
        assert!(matches!(StateDir::open(&link, owner_of(&link)), Err(StateError::NotADirectory { .. })));
        fs::remove_file(&link).unwrap();
        fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn a_cut_secret_is_made_anew() {
        let path = scratch("cut");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        let state = StateDir::open(&path, owner_of(&path)).unwrap();
        fs::write(path.join("secret"), b"short").unwrap();
        assert_ne!(state.secret().unwrap(), [0; STATE_SECRET_BYTES]);
        fs::remove_dir_all(&path).unwrap();
    }
}
