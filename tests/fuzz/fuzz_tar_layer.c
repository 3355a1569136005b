/* links: thimble_images thimble_base */
/* Unpacks the input as a layer, decompression included, in a folder beside one that must stay
 * empty whatever the archive says. */
#include "images/layer.h"
#include "base/io.h"

#include <sys/stat.h>
#include <sys/types.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char top[64];
    if (!*top) {
        (void)snprintf(top, sizeof(top), "/tmp/th-fuzz-layer-XXXXXX");
        TH_ASSERT(mkdtemp(top) != NULL);
    }
    th_autofree char *dir = th_path_join(top, "jail"), *beside = th_path_join(top, "beside");
    TH_ASSERT(th_io_mkdir_p(dir, 0755, NULL) >= 0 && th_io_mkdir_p(beside, 0755, NULL) >= 0);
    struct th_mem_reader m = {.p = (const char *)data, .n = size};
    TH_AUTO(th_decomp) struct th_decomp *d = th_decomp_new(th_reader_mem(&m));
    struct th_layer_apply_opts o = {
        .whiteouts = true, .skip_devices = true, .max_bytes = 1 << 20, .max_entries = 200};
    (void)!th_layer_apply(th_decomp_reader(d), dir, &o, NULL, NULL);
    th_autostrv struct th_strv names = TH_STRV_INIT, outside = TH_STRV_INIT;
    TH_ASSERT(th_io_list(top, &names, NULL) >= 0 && names.n == 2);
    TH_ASSERT(th_io_list(beside, &outside, NULL) >= 0 && outside.n == 0);
    TH_ASSERT(th_io_rm_rf(top, NULL) >= 0);
    TH_ASSERT(mkdir(top, 0700) == 0);
    return 0;
}
