//! The commands of bpf(2) that aya doesn't have: batch operations on maps (kernel 5.6), a second pin of a program, and
//! another program or none for a pinned link of any kind. And what a ring buffer needs to be waited for, and an array to be read
//! where it lies.
//!
//! A batch is one call for thousands of entries instead of one or two for each.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
    ptr::{self, NonNull},
    slice,
    sync::atomic::AtomicU64,
    thread,
    time::Duration,
};

use aya::{
    Pod,
    maps::{MapData, RingBuf},
};
use bytemuck::Zeroable;
use tokio::io::{Interest, unix::AsyncFd};

/// Commands of bpf(2) (`include/uapi/linux/bpf.h`).
const LOOKUP_BATCH: libc::c_long = 24;
const UPDATE_BATCH: libc::c_long = 26;
const DELETE_BATCH: libc::c_long = 27;
const OBJ_PIN: libc::c_long = 6;
const OBJ_GET: libc::c_long = 7;
const LINK_UPDATE: libc::c_long = 29;
const LINK_DETACH: libc::c_long = 34;

/// The `batch` member of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct BatchAttributes {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Where a walk through a map stands. The kernel asks for four bytes (a bucket) of a hash, and for a key of a trie; more does
/// no harm.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cursor {
    position: [u8; 16],
    begun: bool,
}

impl Cursor {
    /// For arrays: behind this index.
    pub(super) fn behind(index: u32) -> Self {
        let mut position = [0; 16];
        position[..4].copy_from_slice(&index.to_ne_bytes());
        Self { position, begun: true }
    }
}

/// Entries of a map, and where the next ones begin: `None` after the last.
type Slice<K, V> = (Vec<(K, V)>, Option<Cursor>);

/// Reads the next slice of a map, `count` entries or fewer.
pub(super) fn lookup<K: Pod + Zeroable, V: Pod + Zeroable>(
    map: &MapData,
    cursor: Cursor,
    count: usize,
) -> io::Result<Slice<K, V>> {
    let mut keys = vec![K::zeroed(); count];
    let mut values = vec![V::zeroed(); count];
    let mut next = Cursor { begun: true, ..Cursor::default() };
    let mut attributes = BatchAttributes {
        in_batch: if cursor.begun { cursor.position.as_ptr() as u64 } else { 0 },
        out_batch: next.position.as_mut_ptr() as u64,
        keys: keys.as_mut_ptr() as u64,
        values: values.as_mut_ptr() as u64,
        count: u32::try_from(count).unwrap_or(u32::MAX),
        map_fd: descriptor(map.fd().as_fd()),
        ..BatchAttributes::default()
    };
    let result = call(LOOKUP_BATCH, &mut attributes);
    let last = match result {
        Ok(_) => false,
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
        Err(error) => return Err(error),
    };
    let filled = attributes.count as usize;
    let entries = keys.into_iter().zip(values).take(filled).collect();
    Ok((entries, (!last).then_some(next)))
}

/// Adds or replaces entries.
pub(super) fn update<K: Pod, V: Pod>(map: &MapData, entries: &[(K, V)]) -> io::Result<()> {
    let keys: Vec<K> = entries.iter().map(|(key, _)| *key).collect();
    let values: Vec<V> = entries.iter().map(|(_, value)| *value).collect();
    if keys.is_empty() {
        return Ok(());
    }
    let mut attributes = BatchAttributes {
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count: u32::try_from(keys.len()).unwrap_or(u32::MAX),
        map_fd: descriptor(map.fd().as_fd()),
        ..BatchAttributes::default()
    };
    call(UPDATE_BATCH, &mut attributes).map(drop)
}

/// Removes entries; that one isn't there is no error.
pub(super) fn delete<K: Pod>(map: &MapData, keys: &[K]) -> io::Result<()> {
    let mut rest = keys;
    while !rest.is_empty() {
        let mut attributes = BatchAttributes {
            keys: rest.as_ptr() as u64,
            count: u32::try_from(rest.len()).unwrap_or(u32::MAX),
            map_fd: descriptor(map.fd().as_fd()),
            ..BatchAttributes::default()
        };
        match call(DELETE_BATCH, &mut attributes) {
            Ok(_) => return Ok(()),
            // The kernel stops at a key that isn't there and says how many it did before: go on behind it.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                rest = rest.get(attributes.count as usize + 1..).unwrap_or_default();
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// An array that was made with `BPF_F_MMAPABLE`, as words in this process's memory. Programs write there meanwhile.
pub(super) struct Mapping {
    words: NonNull<AtomicU64>,
    count: usize,
}

impl Mapping {
    /// Maps the first `count` words. The kernel refuses what is beyond the array.
    pub(super) fn of(map: &MapData, count: usize) -> io::Result<Self> {
        let bytes = count * size_of::<u64>();
        let fd = map.fd().as_fd().as_raw_fd();
        // SAFETY: the kernel picks an address where nothing is.
        let address = unsafe { libc::mmap(ptr::null_mut(), bytes, libc::PROT_READ, libc::MAP_SHARED, fd, 0) };
        match NonNull::new(address.cast()) {
            Some(words) if address != libc::MAP_FAILED => Ok(Self { words, count }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    pub(super) fn words(&self) -> &[AtomicU64] {
        // SAFETY: so many words are mapped, at a page's border, until `self` is dropped. Others write them as whole words, and this
        // process can't: a load of a word needs no write on any machine that the eBPF object is for.
        unsafe { slice::from_raw_parts(self.words.as_ptr(), self.count) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: nobody else has this mapping, and no slice of it outlives `self`.
        unsafe { libc::munmap(self.words.as_ptr().cast(), self.count * size_of::<u64>()) };
    }
}

// SAFETY: the memory is any thread's, and gives nothing but atomic words.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

/// Waits until every program has ended that runs now.
pub(super) fn wait_for_programs() {
    /// `MEMBARRIER_CMD_GLOBAL` (include/uapi/linux/membarrier.h): waits for a grace period of RCU, under which programs run.
    const GLOBAL: libc::c_int = 1;
    /// A kernel with CPUs that hardly ever enter it (nohz_full) refuses that. No program runs for so long.
    const LONG: Duration = Duration::from_millis(100);
    // SAFETY: the call takes numbers only and touches no memory.
    if unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0, 0) } != 0 {
        thread::sleep(LONG);
    }
}

fn descriptor(fd: BorrowedFd<'_>) -> u32 {
    u32::try_from(fd.as_raw_fd()).unwrap_or(u32::MAX)
}

/// The members of `union bpf_attr` for `BPF_OBJ_PIN` and `BPF_OBJ_GET`.
#[repr(C)]
struct PinAttributes {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Puts a program into the pinned link at `path`, in place.
pub(super) fn update_link(path: &CStr, program: BorrowedFd<'_>) -> io::Result<()> {
    /// The `link_update` member of `union bpf_attr`.
    #[repr(C)]
    struct UpdateAttributes {
        link_fd: u32,
        new_prog_fd: u32,
        flags: u32,
        old_prog_fd: u32,
    }
    let link = open_pin(path)?;
    let (link_fd, new_prog_fd) = (descriptor(link.as_fd()), descriptor(program));
    call(LINK_UPDATE, &mut UpdateAttributes { link_fd, new_prog_fd, flags: 0, old_prog_fd: 0 }).map(drop)
}

/// Takes the program out of the pinned link at `path` (kernel 5.9). When this returns it runs for no more packets, whereas
/// the kernel detaches a link that has merely lost its last pin some time later (`bpf_link_put`).
pub(super) fn detach_link(path: &CStr) -> io::Result<()> {
    let link = open_pin(path)?;
    call(LINK_DETACH, &mut descriptor(link.as_fd())).map(drop)
}

fn open_pin(path: &CStr) -> io::Result<OwnedFd> {
    let mut attributes = PinAttributes { pathname: path.as_ptr() as u64, bpf_fd: 0, file_flags: 0 };
    let object = call(OBJ_GET, &mut attributes)?;
    // SAFETY: the kernel has just given this descriptor to the caller, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(object) })
}

/// Pins an object, one that may be pinned elsewhere too.
pub(super) fn pin_object(fd: BorrowedFd<'_>, path: &CStr) -> io::Result<()> {
    let mut attributes = PinAttributes { pathname: path.as_ptr() as u64, bpf_fd: descriptor(fd), file_flags: 0 };
    call(OBJ_PIN, &mut attributes).map(drop)
}

/// Lets the async runtime wait for a ring buffer.
pub(super) fn watch(ring: RingBuf<MapData>) -> io::Result<AsyncFd<RingBuf<MapData>>> {
    // SAFETY: the ring owns its descriptor, gives the same one whenever it is asked, and closes it only when it is dropped.
    Ok(unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }?)
}

/// Calls bpf(2). `A` must be the kernel's structure for the command, and each pointer in it must lead to memory of the
/// size that the command reads or writes, alive in the caller until the call returns.
///
/// Gives what the command returns: a descriptor, or zero.
fn call<A>(command: libc::c_long, attributes: &mut A) -> io::Result<i32> {
    // SAFETY: the callers above fill in the structure of their command, with buffers of `count` elements of the
    // map's own key and value types or a string that ends in zero.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<A>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}
