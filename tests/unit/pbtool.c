/* The C side of the protobuf check: main.go starts it and talks to it in lines.
 *
 *   D <base64 of an envelope>   answers with the object as JSON
 *   E <JSON object>             answers with the base64 of its envelope
 *   N <JSON object>             answers with the object after decoding, as canonical JSON
 *   F <JSON object>             the same, defaults filled in
 *
 * A failure is answered with "ERROR text", one line per request, in order. */
#include "base/encode.h"
#include "controlplane/schema/schema.h"

static int kind_of(const struct th_json *o, const struct th_kind **ret, struct th_err *err)
{
    th_autofree char *group = NULL, *version = NULL;
    TH_TRY(th_gv_split(th_json_path_str(o, "apiVersion"), &group, &version, err));
    *ret = th_kind_find(group, version, th_json_path_str(o, "kind"));
    return *ret ? 0 : th_fail(err, TH_R_BAD_REQUEST, "unknown kind");
}

static int answer(char mode, const char *arg, size_t n, struct th_buf *out, struct th_err *err)
{
    TH_AUTO(th_json) struct th_json *o = NULL;
    const struct th_kind *k = NULL;
    if (mode == 'D') {
        th_autobuf struct th_buf raw = TH_BUF_INIT;
        TH_TRY(th_b64_decode(arg, n, &raw, err));
        TH_TRY(th_pb_decode(th_buf_cstr(&raw), raw.n, NULL, &k, &o, err));
    } else {
        th_autostrv struct th_strv unknown = TH_STRV_INIT;
        TH_TRY(th_json_parse(arg, n, NULL, &o, err));
        TH_TRY(kind_of(o, &k, err));
        TH_TRY(th_schema_decode(k->type, o, &unknown, err));
        TH_TRY(th_schema_field_validation(TH_FV_STRICT, &unknown, NULL, NULL, err));
    }
    if (mode == 'E') {
        th_autobuf struct th_buf raw = TH_BUF_INIT;
        TH_TRY(th_pb_encode(k, o, &raw, err));
        th_b64_encode(th_buf_cstr(&raw), raw.n, out);
        return 0;
    }
    if (mode == 'F') {
        th_schema_default(k, o);
    }
    th_schema_canonicalize(k->type, o);
    th_json_dump(o, out);
    return 0;
}

int main(void)
{
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    while ((n = getline(&line, &cap, stdin)) > 0) {
        if (line[n - 1] == '\n') {
            n--;
        }
        th_autobuf struct th_buf out = TH_BUF_INIT;
        TH_AUTO_ERR struct th_err err = TH_ERR_INIT;
        if (n < 2 || answer(line[0], line + 2, (size_t)n - 2, &out, &err) < 0) {
            printf("ERROR %s\n", err.msg ? err.msg : "bad line");
        } else {
            printf("%s\n", th_buf_cstr(&out));
        }
        (void)fflush(stdout);
    }
    free(line);
    return 0;
}
