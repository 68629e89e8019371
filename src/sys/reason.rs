//! An errno in words, the same whichever C library the program is built on.

use std::fmt;

use rustix::io::Errno;

/// What callers of runtimes search for: the words of glibc's `strerror`, begun in lower case as Go prints them
/// ("permission denied", "no such file or directory").
pub struct Reason(pub Errno);

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.0.raw_os_error();
        match TEXTS.iter().find(|(errno, _)| *errno == number) {
            Some((_, text)) => f.write_str(text),
            None => write!(f, "unknown error {number}"),
        }
    }
}

const TEXTS: &[(i32, &str)] = &[
    (libc::EPERM, "operation not permitted"),
    (libc::ENOENT, "no such file or directory"),
    (libc::ESRCH, "no such process"),
    (libc::EINTR, "interrupted system call"),
    (libc::EIO, "input/output error"),
    (libc::ENXIO, "no such device or address"),
    (libc::E2BIG, "argument list too long"),
    (libc::ENOEXEC, "exec format error"),
    (libc::EBADF, "bad file descriptor"),
    (libc::ECHILD, "no child processes"),
    (libc::EAGAIN, "resource temporarily unavailable"),
    (libc::ENOMEM, "cannot allocate memory"),
    (libc::EACCES, "permission denied"),
    (libc::EFAULT, "bad address"),
    (libc::ENOTBLK, "block device required"),
    (libc::EBUSY, "device or resource busy"),
    (libc::EEXIST, "file exists"),
    (libc::EXDEV, "invalid cross-device link"),
    (libc::ENODEV, "no such device"),
    (libc::ENOTDIR, "not a directory"),
    (libc::EISDIR, "is a directory"),
    (libc::EINVAL, "invalid argument"),
    (libc::ENFILE, "too many open files in system"),
    (libc::EMFILE, "too many open files"),
    (libc::ENOTTY, "inappropriate ioctl for device"),
    (libc::ETXTBSY, "text file busy"),
    (libc::EFBIG, "file too large"),
    (libc::ENOSPC, "no space left on device"),
    (libc::ESPIPE, "illegal seek"),
    (libc::EROFS, "read-only file system"),
    (libc::EMLINK, "too many links"),
    (libc::EPIPE, "broken pipe"),
    (libc::EDOM, "numerical argument out of domain"),
    (libc::ERANGE, "numerical result out of range"),
    (libc::EDEADLK, "resource deadlock avoided"),
    (libc::ENAMETOOLONG, "file name too long"),
    (libc::ENOLCK, "no locks available"),
    (libc::ENOSYS, "function not implemented"),
    (libc::ENOTEMPTY, "directory not empty"),
    (libc::ELOOP, "too many levels of symbolic links"),
    (libc::ENOMSG, "no message of desired type"),
    (libc::EIDRM, "identifier removed"),
    (libc::ECHRNG, "channel number out of range"),
    (libc::EL2NSYNC, "level 2 not synchronized"),
    (libc::EL3HLT, "level 3 halted"),
    (libc::EL3RST, "level 3 reset"),
    (libc::ELNRNG, "link number out of range"),
    (libc::EUNATCH, "protocol driver not attached"),
    (libc::ENOCSI, "no CSI structure available"),
    (libc::EL2HLT, "level 2 halted"),
    (libc::EBADE, "invalid exchange"),
    (libc::EBADR, "invalid request descriptor"),
    (libc::EXFULL, "exchange full"),
    (libc::ENOANO, "no anode"),
    (libc::EBADRQC, "invalid request code"),
    (libc::EBADSLT, "invalid slot"),
    (libc::EBFONT, "bad font file format"),
    (libc::ENOSTR, "device not a stream"),
    (libc::ENODATA, "no data available"),
    (libc::ETIME, "timer expired"),
    (libc::ENOSR, "out of streams resources"),
    (libc::ENONET, "machine is not on the network"),
    (libc::ENOPKG, "package not installed"),
    (libc::EREMOTE, "object is remote"),
    (libc::ENOLINK, "link has been severed"),
    (libc::EADV, "advertise error"),
    (libc::ESRMNT, "srmount error"),
    (libc::ECOMM, "communication error on send"),
    (libc::EPROTO, "protocol error"),
    (libc::EMULTIHOP, "multihop attempted"),
    (libc::EDOTDOT, "RFS specific error"),
    (libc::EBADMSG, "bad message"),
    (libc::EOVERFLOW, "value too large for defined data type"),
    (libc::ENOTUNIQ, "name not unique on network"),
    (libc::EBADFD, "file descriptor in bad state"),
    (libc::EREMCHG, "remote address changed"),
    (libc::ELIBACC, "can not access a needed shared library"),
    (libc::ELIBBAD, "accessing a corrupted shared library"),
    (libc::ELIBSCN, ".lib section in a.out corrupted"),
    (libc::ELIBMAX, "attempting to link in too many shared libraries"),
    (libc::ELIBEXEC, "cannot exec a shared library directly"),
    (libc::EILSEQ, "invalid or incomplete multibyte or wide character"),
    (libc::ERESTART, "interrupted system call should be restarted"),
    (libc::ESTRPIPE, "streams pipe error"),
    (libc::EUSERS, "too many users"),
    (libc::ENOTSOCK, "socket operation on non-socket"),
    (libc::EDESTADDRREQ, "destination address required"),
    (libc::EMSGSIZE, "message too long"),
    (libc::EPROTOTYPE, "protocol wrong type for socket"),
    (libc::ENOPROTOOPT, "protocol not available"),
    (libc::EPROTONOSUPPORT, "protocol not supported"),
    (libc::ESOCKTNOSUPPORT, "socket type not supported"),
    (libc::EOPNOTSUPP, "operation not supported"),
    (libc::EPFNOSUPPORT, "protocol family not supported"),
    (libc::EAFNOSUPPORT, "address family not supported by protocol"),
    (libc::EADDRINUSE, "address already in use"),
    (libc::EADDRNOTAVAIL, "cannot assign requested address"),
    (libc::ENETDOWN, "network is down"),
    (libc::ENETUNREACH, "network is unreachable"),
    (libc::ENETRESET, "network dropped connection on reset"),
    (libc::ECONNABORTED, "software caused connection abort"),
    (libc::ECONNRESET, "connection reset by peer"),
    (libc::ENOBUFS, "no buffer space available"),
    (libc::EISCONN, "transport endpoint is already connected"),
    (libc::ENOTCONN, "transport endpoint is not connected"),
    (libc::ESHUTDOWN, "cannot send after transport endpoint shutdown"),
    (libc::ETOOMANYREFS, "too many references: cannot splice"),
    (libc::ETIMEDOUT, "connection timed out"),
    (libc::ECONNREFUSED, "connection refused"),
    (libc::EHOSTDOWN, "host is down"),
    (libc::EHOSTUNREACH, "no route to host"),
    (libc::EALREADY, "operation already in progress"),
    (libc::EINPROGRESS, "operation now in progress"),
    (libc::ESTALE, "stale file handle"),
    (libc::EUCLEAN, "structure needs cleaning"),
    (libc::ENOTNAM, "not a XENIX named type file"),
    (libc::ENAVAIL, "no XENIX semaphores available"),
    (libc::EISNAM, "is a named type file"),
    (libc::EREMOTEIO, "remote I/O error"),
    (libc::EDQUOT, "disk quota exceeded"),
    (libc::ENOMEDIUM, "no medium found"),
    (libc::EMEDIUMTYPE, "wrong medium type"),
    (libc::ECANCELED, "operation canceled"),
    (libc::ENOKEY, "required key not available"),
    (libc::EKEYEXPIRED, "key has expired"),
    (libc::EKEYREVOKED, "key has been revoked"),
    (libc::EKEYREJECTED, "key was rejected by service"),
    (libc::EOWNERDEAD, "owner died"),
    (libc::ENOTRECOVERABLE, "state not recoverable"),
    (libc::ERFKILL, "operation not possible due to RF-kill"),
    (libc::EHWPOISON, "memory page has hardware error"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_callers_know() {
        for (errno, words) in [
            (Errno::PERM, "operation not permitted"),
            (Errno::LOOP, "too many levels of symbolic links"),
            (Errno::BUSY, "device or resource busy"),
        ] {
            assert_eq!(Reason(errno).to_string(), words);
        }
    }

    #[test]
    fn every_number_of_the_kernel_has_words() {
        let mut numbers: Vec<i32> = TEXTS.iter().map(|(errno, _)| *errno).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), TEXTS.len());
        // 41 and 58 are gaps.
        assert_eq!(numbers, (1..=133).filter(|number| ![41, 58].contains(number)).collect::<Vec<i32>>());
        assert_eq!(Reason(Errno::from_raw_os_error(4000)).to_string(), "unknown error 4000");
    }
}
