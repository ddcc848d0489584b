/* A disk that forgets what was not fsynced, for the buffer's append-only file: preloaded into the server.
 *
 * What the server writes to a file named *.incr* is held back in its own memory until it calls fsync or fdatasync, so kill -9
 * takes it along as a power cut would take the kernel's page cache. A part of it may reach the file earlier, cut anywhere, as a
 * kernel may write back what it likes when it likes; all of it never does. While the file that SLOW_DISK_WHILE names exists,
 * each fsync of such a file takes 50 to 500 ms longer.
 *
 *     cc -shared -fPIC -O2 -o disk.so disk.c -ldl -lpthread       (tests/soak/disk.py)
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILES 65536
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static struct held {
    int ours;
    char *bytes;
    size_t size, room;
    /* Bytes that went to the file so far. */
    size_t gone;
} files[FILES];
/* `now` guards files[]; `syncing` keeps two fsyncs, of the server's main thread and of its helper, one behind the other. */
static pthread_mutex_t now = PTHREAD_MUTEX_INITIALIZER, syncing = PTHREAD_MUTEX_INITIALIZER;

static struct held *held(int fd) { return fd >= 0 && fd < FILES && files[fd].ours ? &files[fd] : NULL; }

static int opened(int fd, const char *path) {
    if (fd >= 0 && fd < FILES && strstr(path, ".incr")) {
        pthread_mutex_lock(&now);
        files[fd].ours = 1;
        files[fd].size = files[fd].gone = 0;
        pthread_mutex_unlock(&now);
    }
    return fd;
}

int open(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;
    va_end(more);
    return opened(REAL(open)(path, flags, mode), path);
}

int open64(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;
    va_end(more);
    return opened(REAL(open64)(path, flags, mode), path);
}

int close(int fd) {
    struct held *file = held(fd);
    if (file) {
        pthread_mutex_lock(&now);
        file->ours = 0;
        pthread_mutex_unlock(&now);
    }
    return REAL(close)(fd);
}

/* The first `size` bytes held go to the file. -1 and errno where they cannot; what was written is held no longer. Under `now`. */
static int written(int fd, struct held *file, size_t size) {
    size_t done = 0;
    while (done < size) {
        ssize_t n = REAL(write)(fd, file->bytes + done, size - done);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) break;
        done += n;
    }
    int error = errno;
    memmove(file->bytes, file->bytes + done, file->size - done);
    file->size -= done;
    file->gone += done;
    errno = error;
    return done == size ? 0 : -1;
}

ssize_t write(int fd, const void *bytes, size_t size) {
    struct held *file = held(fd);
    if (!file) return REAL(write)(fd, bytes, size);
    pthread_mutex_lock(&now);
    if (file->size + size > file->room) {
        file->room = 2 * (file->size + size);
        file->bytes = realloc(file->bytes, file->room);
        if (!file->bytes) abort();
    }
    memcpy(file->bytes + file->size, bytes, size);
    file->size += size;
    /* An error is the next fsync's to tell. */
    if (file->size && rand() % 4 == 0) written(fd, file, rand() % file->size);
    pthread_mutex_unlock(&now);
    return size;
}

static int synced(int fd, int (*sync)(int)) {
    struct held *file = held(fd);
    if (!file) return sync(fd);
    const char *slow = getenv("SLOW_DISK_WHILE");
    pthread_mutex_lock(&syncing);
    pthread_mutex_lock(&now);
    size_t until = file->gone + file->size; /* What comes while it lasts is the next one's. */
    pthread_mutex_unlock(&now);
    if (slow && access(slow, F_OK) == 0) usleep(50000 + rand() % 450000);
    pthread_mutex_lock(&now);
    int failed = until > file->gone ? written(fd, file, until - file->gone) : 0;
    pthread_mutex_unlock(&now);
    if (!failed) failed = sync(fd);
    pthread_mutex_unlock(&syncing);
    return failed;
}

int fsync(int fd) { return synced(fd, REAL(fsync)); }

int fdatasync(int fd) { return synced(fd, REAL(fdatasync)); }
