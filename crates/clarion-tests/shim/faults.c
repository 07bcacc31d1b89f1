/* A failing disk, for tests: preloaded into the server, it stands between it and the C library.
 *
 * CLARION_SHIM_DIR   the folder that holds the data directory (a real path); files elsewhere are left alone
 * CLARION_SHIM_CTL   a file of 64 words (uint64, native order), shared with the test: see enum word
 * CLARION_SHIM_LOG   when set, a log of what a power failure now would undo: see the comments at note()
 *
 * Calls that reach the kernel without the C library are not seen; the library under test makes only atomic renames so.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum word {
    SYNC_DELAY_MS, /* set by the test: every sync takes so much longer */
    SYNC_ERRNO,    /* set by the test: what the next SYNC_FAILS syncs fail with */
    SYNC_FAILS,    /* set by the test, counted down */
    WRITE_ERRNO,   /* set by the test: writes, and what else takes room, fail with this errno while it is not 0 */
    SYNC_HOLD,     /* set by the test: fdatasyncs, which commits wait for, do not go on while it is not 0 */
    SYNCS = 16,    /* counted: syncs that came */
    SYNCS_DONE,    /* ... that succeeded */
    SYNCS_FAILED,  /* ... that were made to fail */
    WRITES,        /* writes that came */
    WRITES_FAILED, /* ... that were made to fail */
    OTHERS,        /* truncations, allocations, renames, new folders */
    SYNCS_HELD,    /* syncs that were or are held */
    WORDS = 64
};

static uint64_t *ctl;
static char dir[PATH_MAX];
static size_t dir_len;
static int log_fd = -1, blob_fd = -1;
static uint64_t lines;
static off_t blob_end;
static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name) ((__typeof__(&name))real(#name))

static void *real(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) {
        abort();
    }
    return found;
}

__attribute__((constructor)) static void begin(void) {
    const char *data = getenv("CLARION_SHIM_DIR"), *control = getenv("CLARION_SHIM_CTL");
    const char *log = getenv("CLARION_SHIM_LOG");
    if (!data || !control || strlen(data) >= sizeof dir) {
        return;
    }
    int fd = REAL(open)(control, O_RDWR | O_CLOEXEC);
    void *map = fd < 0 ? MAP_FAILED
                       : mmap(0, WORDS * sizeof *ctl, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        abort();
    }
    close(fd);
    strcpy(dir, data);
    dir_len = strlen(dir);
    if (log) {
        char blob[PATH_MAX];
        snprintf(blob, sizeof blob, "%s.blob", log);
        int flags = O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC;
        log_fd = REAL(open)(log, flags, 0600);
        blob_fd = REAL(open)(blob, flags, 0600);
        if (log_fd < 0 || blob_fd < 0) {
            abort();
        }
    }
    ctl = map;
}

static uint64_t get(enum word word) { return __atomic_load_n(&ctl[word], __ATOMIC_SEQ_CST); }
static void count(enum word word) { __atomic_add_fetch(&ctl[word], 1, __ATOMIC_SEQ_CST); }

static int ours_path(const char *path) {
    return ctl && strncmp(path, dir, dir_len) == 0 && (path[dir_len] == '/' || !path[dir_len]);
}

/* Whether an open file lies below the directory; `stat` is filled then. */
static int ours(int fd, struct stat *stat) {
    char link[64], path[PATH_MAX];
    if (!ctl || fstat(fd, stat) || !(S_ISREG(stat->st_mode) || S_ISDIR(stat->st_mode))) {
        return 0;
    }
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) {
        return 0;
    }
    path[n] = 0;
    return ours_path(path);
}

/* One line of the log, under `order`. A power failure undoes, from the last line to the first:
 *   W ino offset length size blob   bytes that were written; `size` of the file before; what was there, at `blob` in the
 *                                   blob file (-1: zeros)
 *   T ino size newsize              a changed size
 *   C path                          a file or folder that was made
 * ... except what a later sync covers:
 *   S ino upto                      the file's lines before line `upto` are on disk
 *   D path upto                     the names in this folder made before line `upto` are
 */
__attribute__((format(printf, 1, 2))) static void note(const char *format, ...) {
    char line[2 * PATH_MAX];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line, sizeof line - 1, format, args);
    va_end(args);
    if (n < 0 || n >= (int)sizeof line - 1) {
        abort();
    }
    line[n] = '\n';
    if (REAL(write)(log_fd, line, n + 1) != n + 1) {
        abort();
    }
    lines++;
}

static int all_zero(const char *bytes, ssize_t n) {
    for (ssize_t i = 0; i < n; i++) {
        if (bytes[i]) {
            return 0;
        }
    }
    return 1;
}

/* Notes what a write of `n` bytes at `at` will replace. */
static void note_write(int fd, const struct stat *stat, off_t at, size_t n) {
    off_t kept = -1;
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    /* Files that are only appended to are not open for reading. */
    int in = at < stat->st_size ? REAL(open)(path, O_RDONLY | O_CLOEXEC) : -1;
    if (in >= 0) {
        size_t over = (size_t)(stat->st_size - at) < n ? (size_t)(stat->st_size - at) : n;
        char *old = calloc(1, over);
        ssize_t got = pread(in, old, over, at);
        if (got > 0 && !all_zero(old, got)) {
            kept = blob_end;
            if (REAL(write)(blob_fd, old, over) != (ssize_t)over) {
                abort();
            }
            blob_end += over;
        }
        free(old);
        close(in);
    }
    note("W %ju %jd %zu %jd %jd", (uintmax_t)stat->st_ino, (intmax_t)at, n, (intmax_t)stat->st_size,
         (intmax_t)kept);
}

/* Before a write: 0 = go on, else the errno that it fails with. Takes `order` when the log is kept. */
static int before_write(int fd, off_t at, size_t n, int *locked) {
    struct stat stat;
    if (!ours(fd, &stat)) {
        return 0;
    }
    count(WRITES);
    if (get(WRITE_ERRNO)) {
        count(WRITES_FAILED);
        return (int)get(WRITE_ERRNO);
    }
    if (log_fd >= 0) {
        pthread_mutex_lock(&order);
        *locked = 1;
        if (at < 0) {
            int append = fcntl(fd, F_GETFL) & O_APPEND;
            fstat(fd, &stat);
            at = append ? stat.st_size : lseek(fd, 0, SEEK_CUR);
        }
        note_write(fd, &stat, at, n);
    }
    return 0;
}

#define WRITE(fd, at, n, call)                                                                                         \
    int locked = 0, error = before_write(fd, at, n, &locked);                                                          \
    if (error) {                                                                                                       \
        errno = error;                                                                                                 \
        return -1;                                                                                                     \
    }                                                                                                                  \
    ssize_t done = call;                                                                                               \
    int saved = errno;                                                                                                 \
    if (locked) {                                                                                                      \
        pthread_mutex_unlock(&order);                                                                                  \
    }                                                                                                                  \
    errno = saved;                                                                                                     \
    return done

static size_t total(const struct iovec *parts, int n) {
    size_t sum = 0;
    for (int i = 0; i < n; i++) {
        sum += parts[i].iov_len;
    }
    return sum;
}

ssize_t write(int fd, const void *bytes, size_t n) { WRITE(fd, -1, n, REAL(write)(fd, bytes, n)); }
ssize_t pwrite(int fd, const void *bytes, size_t n, off_t at) { WRITE(fd, at, n, REAL(pwrite)(fd, bytes, n, at)); }
ssize_t pwrite64(int fd, const void *bytes, size_t n, off64_t at) {
    WRITE(fd, at, n, REAL(pwrite64)(fd, bytes, n, at));
}
ssize_t writev(int fd, const struct iovec *parts, int n) { WRITE(fd, -1, total(parts, n), REAL(writev)(fd, parts, n)); }
ssize_t pwritev(int fd, const struct iovec *parts, int n, off_t at) {
    WRITE(fd, at, total(parts, n), REAL(pwritev)(fd, parts, n, at));
}
ssize_t pwritev64(int fd, const struct iovec *parts, int n, off64_t at) {
    WRITE(fd, at, total(parts, n), REAL(pwritev64)(fd, parts, n, at));
}

/* Takes one of the failures that the test asked for. */
static int take_failure(void) {
    uint64_t left = get(SYNC_FAILS);
    while (left) {
        if (__atomic_compare_exchange_n(&ctl[SYNC_FAILS], &left, left - 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
            return 1;
        }
    }
    return 0;
}

static int synced(int fd, int (*call)(int), int may_hold) {
    struct stat stat;
    if (!ours(fd, &stat)) {
        return call(fd);
    }
    count(SYNCS);
    pthread_mutex_lock(&order);
    uint64_t upto = lines;
    pthread_mutex_unlock(&order);
    uint64_t ms = get(SYNC_DELAY_MS);
    struct timespec left = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000};
    while (ms && nanosleep(&left, &left) && errno == EINTR) {
    }
    if (may_hold && get(SYNC_HOLD)) {
        count(SYNCS_HELD);
        const struct timespec step = {0, 1000000};
        while (get(SYNC_HOLD)) {
            nanosleep(&step, NULL);
        }
    }
    if (take_failure()) {
        count(SYNCS_FAILED);
        errno = (int)get(SYNC_ERRNO);
        return -1;
    }
    if (call(fd)) {
        return -1;
    }
    count(SYNCS_DONE);
    if (log_fd >= 0) {
        pthread_mutex_lock(&order);
        if (S_ISDIR(stat.st_mode)) {
            char link[64], path[PATH_MAX];
            snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
            ssize_t n = readlink(link, path, sizeof path - 1);
            path[n < 0 ? 0 : n] = 0;
            note("D %ju %s", (uintmax_t)upto, path);
        } else {
            note("S %ju %ju", (uintmax_t)stat.st_ino, (uintmax_t)upto);
        }
        pthread_mutex_unlock(&order);
    }
    return 0;
}

int fsync(int fd) { return synced(fd, REAL(fsync), 0); }
int fdatasync(int fd) { return synced(fd, REAL(fdatasync), 1); }

static int resized(int fd, off64_t size, int (*call)(int, off64_t)) {
    struct stat stat;
    if (!ours(fd, &stat)) {
        return call(fd, size);
    }
    count(OTHERS);
    if (get(WRITE_ERRNO) && size > stat.st_size) {
        errno = (int)get(WRITE_ERRNO);
        return -1;
    }
    if (log_fd < 0) {
        return call(fd, size);
    }
    pthread_mutex_lock(&order);
    fstat(fd, &stat);
    if (size < stat.st_size) {
        note_write(fd, &stat, size, stat.st_size - size);
    }
    note("T %ju %jd %jd", (uintmax_t)stat.st_ino, (intmax_t)stat.st_size, (intmax_t)size);
    int done = call(fd, size);
    pthread_mutex_unlock(&order);
    return done;
}

int ftruncate64(int fd, off64_t size) { return resized(fd, size, REAL(ftruncate64)); }
int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

static int allocated(int fd) {
    struct stat stat;
    if (ours(fd, &stat)) {
        count(OTHERS);
        return (int)get(WRITE_ERRNO);
    }
    return 0;
}

int fallocate64(int fd, int mode, off64_t at, off64_t n) {
    int error = allocated(fd);
    errno = error ? error : errno;
    return error ? -1 : REAL(fallocate64)(fd, mode, at, n);
}
int fallocate(int fd, int mode, off_t at, off_t n) { return fallocate64(fd, mode, at, n); }
int posix_fallocate64(int fd, off64_t at, off64_t n) {
    int error = allocated(fd);
    return error ? error : REAL(posix_fallocate64)(fd, at, n);
}

static void note_made(const char *path) {
    if (log_fd >= 0) {
        pthread_mutex_lock(&order);
        note("C %s", path);
        pthread_mutex_unlock(&order);
    }
}

static int makes(const char *path, int flags) {
    struct stat stat;
    return ours_path(path) && (flags & O_CREAT) && lstat(path, &stat) != 0;
}

static int refused(void) {
    if (get(WRITE_ERRNO)) {
        count(WRITES_FAILED);
        errno = (int)get(WRITE_ERRNO);
        return 1;
    }
    return 0;
}

#define OPEN(call)                                                                                                     \
    mode_t mode = 0;                                                                                                   \
    if (flags & (O_CREAT | O_TMPFILE)) {                                                                               \
        va_list args;                                                                                                  \
        va_start(args, flags);                                                                                         \
        mode = va_arg(args, mode_t);                                                                                   \
        va_end(args);                                                                                                  \
    }                                                                                                                  \
    int made = makes(path, flags);                                                                                     \
    if (made && refused()) {                                                                                           \
        return -1;                                                                                                     \
    }                                                                                                                  \
    int fd = call;                                                                                                     \
    if (fd >= 0 && made) {                                                                                             \
        note_made(path);                                                                                               \
    }                                                                                                                  \
    return fd

int open(const char *path, int flags, ...) { OPEN(REAL(open)(path, flags, mode)); }
int open64(const char *path, int flags, ...) { OPEN(REAL(open64)(path, flags, mode)); }

int mkdir(const char *path, mode_t mode) {
    if (ours_path(path) && refused()) {
        return -1;
    }
    int done = REAL(mkdir)(path, mode);
    if (done == 0 && ours_path(path)) {
        count(OTHERS);
        note_made(path);
    }
    return done;
}

int rename(const char *from, const char *to) {
    if (ours_path(from)) {
        count(OTHERS);
        if (refused()) {
            return -1;
        }
    }
    return REAL(rename)(from, to);
}
