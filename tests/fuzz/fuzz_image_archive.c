/* links: thimble_images thimble_base */
/* A whole image archive: the tar, index.json or manifest.json, manifests and configs. Nothing is
 * unpacked (fuzz_tar_layer does that); the store is in memory and new for every input. */
#include "base/io.h"
#include "images/archive.h"
#include "images/content.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char dir[] = "/dev/shm/th-fuzz-XXXXXX";
    struct th_images *store = NULL;
    if (!mkdtemp(dir)) {
        return 0;
    }
    if (th_images_open(dir, TH_IMAGES_NO_UNPACK, &store, NULL) == 0) {
        struct th_mem_reader mem = {.p = (const char *)data, .n = size};
        th_autostrv struct th_strv names = TH_STRV_INIT;
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        struct th_image_load_opts o = {.name = "fuzz:1"};
        if (th_images_load(store, th_reader_mem(&mem), &o, &names, &err) == 0) {
            for (size_t i = 0; i < names.n; i++) { /* what was taken in must be readable */
                TH_AUTO(th_image) struct th_image *img = NULL;
                TH_ASSERT(th_images_resolve(store, names.v[i], &img, NULL) == 0);
            }
        } else {
            TH_ASSERT(err.reason != TH_R_OK && err.msg);
        }
        th_images_close(store);
    }
    (void)th_io_rm_rf(dir, NULL);
    return 0;
}
