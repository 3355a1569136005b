/*
 * Regular expressions with Go's syntax and linear cost, over PCRE2.
 *
 * PCRE2's usual matcher backtracks and can be made to run for ever. Whether an expression matches at
 * all, which is what patterns and matches() ask, is therefore decided by its other one
 * (pcre2_dfa_match), which walks the text once with the set of all states it could be in. It has no
 * way to start anywhere without starting over at each character, so the expression is compiled a
 * second time behind a lazy ".*?" and anchored. Where a match is and what its groups hold only the
 * backtracking matcher can say; it runs under a limit of steps and fails when that is reached.
 *
 * Refused: libre2, which is C++ and would bring its run time into the guest image.
 *
 * A compiled expression is read only; match data and work space belong to each call.
 */
#include "controlplane/schema/regex.h"

#include "base/limits.h"
#include "controlplane/schema/regex_syntax.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#define OPTIONS                                                                                    \
    (PCRE2_UTF | PCRE2_DOLLAR_ENDONLY | PCRE2_NEVER_BACKSLASH_C | PCRE2_ALT_CIRCUMFLEX |           \
     PCRE2_NO_START_OPTIMIZE)
#define STEPS 200000       /* of the backtracking matcher, times the length of the text */
#define MAX_STEPS 20000000
#define WORKSPACE 4096     /* integers, grown when they do not do */
#define MAX_WORKSPACE (1 << 20)

struct th_regex {
    pcre2_code *find;  /* as written */
    pcre2_code *test;  /* for the one-pass matcher */
    struct th_strv names;
};

void th_regex_free(struct th_regex *r)
{
    if (r) {
        pcre2_code_free(r->find);
        pcre2_code_free(r->test);
        th_strv_done(&r->names);
        free(r);
    }
}

static pcre2_code *compile(const char *text, size_t n, uint32_t options, int *ret_code)
{
    pcre2_compile_context *cc = pcre2_compile_context_create(NULL);
    TH_ASSERT(cc);
    (void)pcre2_set_newline(cc, PCRE2_NEWLINE_LF);
    (void)pcre2_set_parens_nest_limit(cc, 1000);
    PCRE2_SIZE at = 0;
    pcre2_code *code =
        pcre2_compile((PCRE2_SPTR)text, n, OPTIONS | options, ret_code, &at, cc);
    pcre2_compile_context_free(cc);
    return code;
}

int th_regex_new(const char *pattern, size_t n, struct th_regex **ret, struct th_err *err)
{
    if (n > TH_LIMIT_REGEX_B) {
        return th_fail(err, TH_R_INVALID, "error parsing regexp: expression too large");
    }
    TH_AUTO(th_regex) struct th_regex *r = TH_NEW(struct th_regex);
    th_autobuf struct th_buf text = TH_BUF_INIT;
    TH_TRY(th_regex_translate(pattern, n, &text, &r->names, err));
    int code = 0;
    r->find = compile(th_buf_cstr(&text), text.n, 0, &code);
    if (r->find) {
        th_autobuf struct th_buf any = TH_BUF_INIT;
        th_buf_printf(&any, "(?s:.*?)(?:%s)", th_buf_cstr(&text));
        r->test = compile(th_buf_cstr(&any), any.n, PCRE2_ANCHORED | PCRE2_NO_AUTO_CAPTURE, &code);
    }
    if (!r->test) {
        PCRE2_UCHAR why[256];
        (void)pcre2_get_error_message(code, why, sizeof(why));
        return th_fail(err, TH_R_INVALID, "error parsing regexp: %s: `%.*s`",
                       code == PCRE2_ERROR_UNKNOWN_UNICODE_PROPERTY ||
                               code == PCRE2_ERROR_MALFORMED_UNICODE_PROPERTY
                           ? "invalid character class range"
                           : (const char *)why,
                       (int)n, pattern);
    }
    *ret = th_steal(&r);
    return 0;
}

size_t th_regex_groups(const struct th_regex *r)
{
    return r->names.n + 1;
}

const char *th_regex_group_name(const struct th_regex *r, size_t i)
{
    return i > 0 && i <= r->names.n && *r->names.v[i - 1] ? r->names.v[i - 1] : NULL;
}

static int fail_cost(struct th_err *err)
{
    return th_fail(err, TH_R_TOO_LARGE, "matching the regular expression costs too much");
}

int th_regex_match(const struct th_regex *r, const char *s, size_t n, struct th_err *err)
{
    pcre2_match_data *md = pcre2_match_data_create(1, NULL);
    TH_ASSERT(md);
    int rc = PCRE2_ERROR_DFA_WSSIZE;
    for (size_t ws = WORKSPACE; rc == PCRE2_ERROR_DFA_WSSIZE && ws <= MAX_WORKSPACE; ws *= 8) {
        th_autofree int *space = th_xmalloc(ws * sizeof(*space));
        rc = pcre2_dfa_match(r->test, (PCRE2_SPTR)s, n, 0, PCRE2_DFA_SHORTEST, md, NULL, space, ws);
    }
    pcre2_match_data_free(md);
    return rc >= 0 ? 1 : rc == PCRE2_ERROR_NOMATCH ? 0 : fail_cost(err);
}

int th_regex_find_groups(const struct th_regex *r, const char *s, size_t n, size_t from,
                         size_t *ret, struct th_err *err)
{
    pcre2_match_data *md = pcre2_match_data_create_from_pattern(r->find, NULL);
    pcre2_match_context *mc = pcre2_match_context_create(NULL);
    TH_ASSERT(md && mc);
    uint64_t steps = (uint64_t)STEPS + 100u * (uint64_t)n;
    (void)pcre2_set_match_limit(mc, (uint32_t)(steps > MAX_STEPS ? MAX_STEPS : steps));
    int rc = pcre2_match(r->find, (PCRE2_SPTR)s, n, from, 0, md, mc);
    if (rc >= 0) {
        const PCRE2_SIZE *v = pcre2_get_ovector_pointer(md);
        for (size_t i = 0; i < 2 * th_regex_groups(r); i++) {
            bool set = i / 2 < (size_t)rc && v[i] != PCRE2_UNSET;
            ret[i] = set ? v[i] : SIZE_MAX;
        }
    }
    pcre2_match_data_free(md);
    pcre2_match_context_free(mc);
    return rc >= 0 ? 1 : rc == PCRE2_ERROR_NOMATCH ? 0 : fail_cost(err);
}

int th_regex_find(const struct th_regex *r, const char *s, size_t n, size_t from, size_t *ret_at,
                  size_t *ret_n, struct th_err *err)
{
    th_autofree size_t *v = th_xcalloc(2 * th_regex_groups(r), sizeof(*v));
    int rc = th_regex_find_groups(r, s, n, from, v, err);
    if (rc > 0) {
        *ret_at = v[0];
        *ret_n = v[1] - v[0];
    }
    return rc;
}
