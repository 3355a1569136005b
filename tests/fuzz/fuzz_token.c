/* links: thimble_resources thimble_base */
/* Bearer tokens: whatever does not carry our signature is refused, and what is read of it before does
 * no harm. The input is also signed by us, so that claims of any shape are read. */
#include "base/encode.h"
#include "base/pki.h"
#include "controlplane/resources/token.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char *key;
    if (!key) {
        TH_ASSERT(th_pki_key_new(&key, NULL) == 0);
    }
    th_autofree char *text = th_xstrndup((const char *)data, size);
    struct th_token_claims c = {0};
    TH_ASSERT(th_token_parse(key, "iss", text, &c, NULL) < 0);
    th_autobuf struct th_buf b = TH_BUF_INIT;
    static const char header[] = "{\"alg\":\"ES256\"}";
    th_b64url_encode(header, strlen(header), &b);
    th_buf_putc(&b, '.');
    th_b64url_encode(data, size, &b);
    unsigned char sig[64];
    TH_ASSERT(th_pki_sign_es256(key, b.p, b.n, sig, NULL) == 0);
    th_buf_putc(&b, '.');
    th_b64url_encode(sig, sizeof(sig), &b);
    if (th_token_parse(key, "iss", th_buf_cstr(&b), &c, NULL) == 0) {
        TH_ASSERT(c.ns && c.sa_name && c.subject);
        (void)th_token_check_time(&c, 0, NULL);
        th_token_claims_done(&c);
    }
    return 0;
}
