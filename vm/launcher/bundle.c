/* Unpacking the guest's parts out of the program (bundle.h).
 *
 * The cache is addressed by content: cache/guest/<sha256>/<name>. A file is written beside its
 * place, its hash is checked while it is written, and it is renamed, so that a file that is there
 * is whole, and two versions of thimble share what is equal. Space that a hole would do for is not
 * written (kernels are a fifth zeros). */
#include "vm/launcher/bundle.h"
#include "base/encode.h"
#include "base/io.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <zstd.h>

static const struct th_guest_bundle *bundle; /* set once, before any thread */

void th_guest_bundle_use(const struct th_guest_bundle *b)
{
    bundle = b;
}

static const struct th_guest_part *find(const char *name)
{
    for (size_t i = 0; bundle && i < bundle->n_parts; i++) {
        if (th_streq(bundle->parts[i].name, name)) {
            return &bundle->parts[i];
        }
    }
    return NULL;
}

static char *in_folder(const char *name)
{
    const char *dir = getenv("THIMBLE_GUEST_DIR");
    if (!dir || !dir[0]) {
        return NULL;
    }
    char *path = th_path_join(dir, name);
    if (!th_io_exists(path)) {
        free(path);
        return NULL;
    }
    return path;
}

bool th_guest_part_have(const char *name)
{
    th_autofree char *path = in_folder(name);
    return path || find(name);
}

static int write_chunk(int fd, const char *p, size_t n, struct th_err *err)
{
    bool zero = n > 0 && p[0] == 0 && memcmp(p, p + 1, n - 1) == 0;
    if (zero && lseek(fd, (off_t)n, SEEK_CUR) >= 0) {
        return 0;
    }
    return th_io_write_all(fd, p, n, err);
}

static int unpack(const struct th_guest_part *part, int fd, struct th_err *err)
{
    ZSTD_DStream *z = ZSTD_createDStream();
    struct th_sha256 *sha = th_sha256_new();
    size_t room = ZSTD_DStreamOutSize();
    th_autofree char *plain = th_xmalloc(room);
    ZSTD_inBuffer in = {part->start, (size_t)(part->end - part->start), 0};
    uint64_t total = 0;
    int r = 0;
    size_t left = 1;
    while (left != 0 && r == 0) {
        ZSTD_outBuffer out = {plain, room, 0};
        left = ZSTD_decompressStream(z, &out, &in);
        bool stuck = left != 0 && out.pos == 0 && in.pos == in.size;
        if (ZSTD_isError(left) || stuck) {
            r = th_fail(err, TH_R_BAD_ARCHIVE, "guest part %s is damaged in this program",
                        part->name);
            break;
        }
        th_sha256_add(sha, plain, out.pos);
        total += out.pos;
        r = write_chunk(fd, plain, out.pos, err);
    }
    unsigned char digest[TH_SHA256_LEN];
    char hex[TH_SHA256_HEX_LEN];
    th_sha256_finish(sha, digest);
    th_hex(digest, sizeof(digest), hex);
    (void)ZSTD_freeDStream(z);
    if (r == 0 && (total != part->size_b || !th_streq(hex, part->sha256))) {
        r = th_fail(err, TH_R_DIGEST_MISMATCH, "guest part %s is damaged in this program",
                    part->name);
    }
    if (r == 0 && ftruncate(fd, (off_t)total) < 0) { /* a hole may be last */
        r = th_fail_errno(err, errno, TH_R_IO, "unpack %s", part->name);
    }
    return r;
}

int th_guest_part_path(const char *cache_dir, const char *name, char **ret_path, struct th_err *err)
{
    th_autofree char *path = in_folder(name);
    if (path) {
        *ret_path = th_steal(&path);
        return 0;
    }
    const struct th_guest_part *part = find(name);
    if (!part) {
        return th_fail(err, TH_R_NOT_FOUND, "this thimble was built without the guest part %s", name);
    }
    th_autofree char *dir = th_path_joinf(cache_dir, "guest/%.16s", part->sha256);
    path = th_path_join(dir, name);
    struct stat st;
    if (stat(path, &st) == 0 && (uint64_t)st.st_size == part->size_b) {
        *ret_path = th_steal(&path);
        return 0;
    }
    TH_TRY(th_io_mkdir_p(dir, 0700, err));
    th_autofree char *temp = th_xasprintf("%s.%d", path, (int)getpid());
    th_autoclose int fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0700);
    if (fd < 0) {
        return th_fail_errno(err, errno, TH_R_IO, "%s", temp);
    }
    int r = unpack(part, fd, err);
    if (r == 0 && rename(temp, path) < 0) {
        r = th_fail_errno(err, errno, TH_R_IO, "%s", path);
    }
    if (r < 0) {
        (void)unlink(temp);
        return r;
    }
    *ret_path = th_steal(&path);
    return 0;
}
