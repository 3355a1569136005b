/* links: thimble_base */
/* Certificate requests as PEM, and as DER wrapped into PEM; certificates of a status. */
#include "base/encode.h"
#include "base/pki.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void both(const char *pem)
{
    TH_CLEANUP(th_pki_request_done) struct th_pki_request r = {.common_name = NULL};
    (void)!th_pki_request_parse(pem, &r, NULL);
    (void)!th_pki_certificates_check(pem, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    th_autofree char *text = th_xstrndup((const char *)data, size);
    both(text);
    static const char *const types[] = {"CERTIFICATE REQUEST", "CERTIFICATE"};
    for (size_t i = 0; i < TH_ARRAY_LEN(types); i++) {
        th_autobuf struct th_buf b = TH_BUF_INIT;
        th_buf_printf(&b, "-----BEGIN %s-----\n", types[i]);
        th_b64_encode(data, size, &b);
        th_buf_printf(&b, "\n-----END %s-----\n", types[i]);
        both(th_buf_cstr(&b));
    }
    return 0;
}
