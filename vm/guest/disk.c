/* The data disk: everything that outlives a boot (store, images, volumes, logs).
 *
 * It is found by its virtio-blk serial, never by its place. A blank one is formatted; one that was
 * not unmounted cleanly, or in which the kernel found errors, goes through e2fsck -p first; a
 * clean one is mounted at once, for starting e2fsck would cost a fifth of a second under
 * emulation. A device larger than its file system is grown while mounted, by the kernel itself
 * (EXT4_IOC_RESIZE_FS, what resize2fs does). A disk that holds something unknown is left alone and
 * the boot fails: formatting is for zeros only.
 *
 * Inode tables are not zeroed in the background (noinit_itable): the qcow2 on the host would grow
 * for nothing. `discard` gives freed blocks back to the host. */
#include "base/io.h"
#include "base/log.h"
#include "base/proc.h"
#include "vm/guest/guest.h"
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>

#define FSCK_TIMEOUT_MS 600000
#define MKFS_TIMEOUT_MS 120000
#define EXT4_RESIZE_FS _IOW('f', 16, uint64_t) /* EXT4_IOC_RESIZE_FS of fs/ext4/ext4.h */

/* struct ext4_super_block (Documentation/filesystems/ext4/super.rst), at byte 1024. */
static uint32_t le32(const unsigned char *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof(v));
    return le32toh(v);
}
static uint16_t le16(const unsigned char *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof(v));
    return le16toh(v);
}

void th_disk_super_read(const unsigned char *head, struct th_disk_super *ret)
{
    const unsigned char *sb = head + 1024;
    *ret = (struct th_disk_super){.ext4 = le16(sb + 0x38) == 0xEF53, .blank = true};
    for (size_t i = 0; i < TH_DISK_PROBE_B && ret->blank; i++) {
        ret->blank = head[i] == 0;
    }
    if (!ret->ext4) {
        return;
    }
    uint32_t log_block = le32(sb + 0x18);
    uint64_t blocks = le32(sb + 0x04);
    if (le32(sb + 0x60) & 0x80) { /* INCOMPAT_64BIT */
        blocks |= (uint64_t)le32(sb + 0x150) << 32;
    }
    ret->size_b = log_block <= 6 ? blocks << (10 + log_block) : 0;
    bool clean = (le16(sb + 0x3A) & 1) && !(le16(sb + 0x3A) & 2);
    bool journal_pending = le32(sb + 0x60) & 0x4; /* INCOMPAT_RECOVER */
    ret->needs_check = !clean || journal_pending;
}

static int find_device(char **ret, struct th_err *err)
{
    th_autostrv struct th_strv names = TH_STRV_INIT;
    TH_TRY(th_io_list("/sys/block", &names, err));
    for (size_t i = 0; i < names.n; i++) {
        th_autofree char *path = th_path_joinf("/sys/block", "%s/serial", names.v[i]);
        th_autobuf struct th_buf serial = TH_BUF_INIT;
        if (th_io_read_file(path, 256, &serial, NULL) == 0 &&
            th_streq(th_buf_cstr(&serial), TH_GUEST_DATA_SERIAL)) {
            *ret = th_xasprintf("/dev/%s", names.v[i]);
            return 0;
        }
    }
    return th_fail(err, TH_R_BOOT_FAILED, "no data disk with the serial " TH_GUEST_DATA_SERIAL);
}

static int make_fs(const char *dev, struct th_err *err)
{
    th_info("init", "formatting the data disk", "device=%s", dev);
    th_autobuf struct th_buf out = TH_BUF_INIT;
    int r = th_proc_runl(&out, MKFS_TIMEOUT_MS, err, "mke2fs", "-q", "-F", "-t", "ext4", "-m", "0",
                         "-i", "32768", "-J", "size=32", "-L", "thimble", "-E",
                         "nodiscard,lazy_itable_init=1,lazy_journal_init=1", dev, NULL);
    return r < 0 ? th_wrap(err, "format the data disk") : 0;
}

static int check_fs(const char *dev, struct th_err *err)
{
    th_info("init", "checking the data disk", "device=%s", dev);
    const char *argv[] = {"e2fsck", "-p", dev, NULL};
    struct th_proc_opts opts = {.argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1};
    th_autobuf struct th_buf out = TH_BUF_INIT;
    int code = 0;
    TH_AUTO_ERR struct th_err e = TH_ERR_INIT;
    int r = th_proc_run(&opts, TH_STR(""), &out, &out, FSCK_TIMEOUT_MS, &code, &e);
    if (r < 0 && code == 0) {
        th_err_move(err ? err : &e, &e);
        return r;
    }
    if (code >= 4) { /* 1: corrected, 2: corrected and reboot advised; 4 and up: errors remain */
        (void)th_fail(err, TH_R_STATE_CORRUPT, "the data disk has errors that e2fsck -p leaves: %s",
                      th_buf_cstr(&out));
        return th_hint(err, "the disk image can be copied and repaired with e2fsck on the host; "
                            "`thimble delete` starts anew");
    }
    if (code != 0) {
        th_warn("init", "data disk repaired", "output=%s", th_log_q(th_buf_cstr(&out)));
    }
    return 0;
}

static void grow(const char *where, uint64_t device_b, uint64_t fs_b)
{
    struct stat st;
    th_autoclose int fd = open(where, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0) {
        return;
    }
    uint64_t blocks = device_b / (uint64_t)st.st_blksize;
    if (ioctl(fd, EXT4_RESIZE_FS, &blocks) < 0) {
        th_warn("init", "data disk not grown", "errno=%d", errno);
        return;
    }
    th_info("init", "data disk grown", "from_mb=%llu to_mb=%llu", (unsigned long long)(fs_b >> 20),
            (unsigned long long)(device_b >> 20));
}

int th_guest_mount_data(const char *where, struct th_err *err)
{
    th_autofree char *dev = NULL;
    TH_TRY(find_device(&dev, err));
    th_autoclose int fd = open(dev, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return th_fail_errno(err, errno, TH_R_BOOT_FAILED, "%s", dev);
    }
    uint64_t device_b = 0;
    th_autofree unsigned char *head = th_xcalloc(1, TH_DISK_PROBE_B);
    if (ioctl(fd, BLKGETSIZE64, &device_b) < 0 ||
        pread(fd, head, TH_DISK_PROBE_B, 0) != TH_DISK_PROBE_B) {
        return th_fail_errno(err, errno, TH_R_BOOT_FAILED, "read %s", dev);
    }
    (void)close(th_steal_fd(&fd));
    struct th_disk_super sb;
    th_disk_super_read(head, &sb);
    if (sb.blank) {
        TH_TRY(make_fs(dev, err));
        sb.size_b = device_b;
    } else if (!sb.ext4) {
        (void)th_fail(err, TH_R_STATE_CORRUPT, "the data disk holds something that is not ext4");
        return th_hint(err, "`thimble delete` and start anew, or put the right disk.qcow2 back");
    } else if (sb.needs_check) {
        TH_TRY(check_fs(dev, err));
    }
    if (mount(dev, where, "ext4", MS_NOATIME, "discard,noinit_itable") < 0) {
        return th_fail_errno(err, errno, TH_R_BOOT_FAILED, "mount the data disk");
    }
    /* mke2fs rounds down to whole block groups, so a difference below one group is no growth. */
    if (device_b > sb.size_b && device_b - sb.size_b >= (128u << 20)) {
        grow(where, device_b, sb.size_b);
    }
    static const char *const bound[][2] = {{"log", "/var/log"}, {"host/opt", "/opt"},
                                           {"host/srv", "/srv"}, {"host/mnt", "/mnt"},
                                           {"host/home", "/home"}, {"host/data", "/data"},
                                           {"host/root", "/root"}, {"tmp", "/var/tmp"}};
    for (size_t i = 0; i < TH_ARRAY_LEN(bound); i++) {
        th_autofree char *from = th_path_join(where, bound[i][0]);
        TH_TRY(th_io_mkdir_p(from, 0755, err));
        if (mount(from, bound[i][1], NULL, MS_BIND, NULL) < 0) {
            return th_fail_errno(err, errno, TH_R_BOOT_FAILED, "bind %s", bound[i][1]);
        }
    }
    return 0;
}
