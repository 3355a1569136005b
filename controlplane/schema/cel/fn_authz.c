/* The authorizer library: a question is put together member by member and asked with check(); and
 * escaping of keys for paths of JSON patches. */
#include "controlplane/schema/cel/fn_priv.h"

#define CHECK_COST 350000 /* so that one expression can ask twice */

/* A copy of args[0]'s question to change one part of, with the text of args[1]. */
static struct cel_authz *next_part(struct cel_eval *e, const struct cel_val *args, const char **ret)
{
    struct cel_authz *z = cel_alloc(&e->a, sizeof(*z));
    *z = *args[0].authz;
    *ret = cel_strdup(&e->a, args[1].s.p, args[1].s.n);
    return z;
}

static struct cel_val part(enum cel_kind kind, const struct cel_authz *z)
{
    return (struct cel_val){.kind = kind, .authz = z};
}

CEL_FN_DEF(cel_fn_authz_path)
{
    const char *s;
    struct cel_authz *z = next_part(e, args, &s);
    z->q.path = s;
    return *s ? part(CEL_PATH_CHECK, z) : cel_error(e, "path must not be empty");
}

CEL_FN_DEF(cel_fn_authz_group)
{
    const char *s;
    struct cel_authz *z = next_part(e, args, &s);
    struct th_cel_question q = {.account = z->q.account, .account_ns = z->q.account_ns};
    q.group = s;
    z->q = q;
    return part(CEL_GROUP_CHECK, z);
}

CEL_FN_DEF(cel_fn_authz_account)
{
    const char *s;
    struct cel_authz *z = next_part(e, args, &s);
    z->q = (struct th_cel_question){.account_ns = s};
    z->q.account = cel_strdup(&e->a, args[2].s.p, args[2].s.n);
    return part(CEL_AUTHORIZER, z);
}

CEL_FN_DEF(cel_fn_authz_resource)
{
    const char *s;
    struct cel_authz *z = next_part(e, args, &s);
    z->q.resource = s;
    return *s ? part(CEL_RESOURCE_CHECK, z) : cel_error(e, "resource must not be empty");
}

/* The steps that only say one thing more of the resource. */
#define RESOURCE_STEP(name, member)                                                                \
    CEL_FN_DEF(name)                                                                               \
    {                                                                                              \
        const char *s;                                                                             \
        struct cel_authz *z = next_part(e, args, &s);                                              \
        z->q.member = s;                                                                           \
        return part(CEL_RESOURCE_CHECK, z);                                                        \
    }
RESOURCE_STEP(cel_fn_authz_sub, sub)
RESOURCE_STEP(cel_fn_authz_ns, ns)
RESOURCE_STEP(cel_fn_authz_name, name)
RESOURCE_STEP(cel_fn_authz_fields, fields)
RESOURCE_STEP(cel_fn_authz_labels, labels)

CEL_FN_DEF(cel_fn_authz_check)
{
    const char *s;
    if (!cel_charge(e, CHECK_COST)) {
        return cel_error(e, "operation cancelled: actual cost limit exceeded");
    }
    struct cel_authz *z = next_part(e, args, &s);
    z->q.verb = s;
    const char **parts[] = {&z->q.group, &z->q.resource, &z->q.sub,   &z->q.ns,
                            &z->q.name,  &z->q.fields,   &z->q.labels};
    for (size_t i = 0; i < TH_ARRAY_LEN(parts); i++) {
        *parts[i] = *parts[i] ? *parts[i] : "";
    }
    th_autobuf struct th_buf reason = TH_BUF_INIT;
    z->allowed = z->by->allowed(z->by->self, &z->q, &reason);
    z->reason = cel_strdup(&e->a, th_buf_cstr(&reason), reason.n);
    return part(CEL_DECISION, z);
}

CEL_FN_DEF(cel_fn_authz_errored)
{
    return cel_bool(false); /* the authorizers here always know */
}

CEL_FN_DEF(cel_fn_authz_error)
{
    return cel_text("");
}

CEL_FN_DEF(cel_fn_authz_allowed)
{
    return cel_bool(args[0].authz->allowed);
}

CEL_FN_DEF(cel_fn_authz_reason)
{
    return cel_text(args[0].authz->reason);
}

CEL_FN_DEF(cel_fn_escape_key)
{
    th_autobuf struct th_buf b = TH_BUF_INIT;
    for (size_t i = 0; i < args[0].s.n; i++) {
        char c = args[0].s.p[i];
        th_buf_puts(&b, c == '~' ? "~0" : c == '/' ? "~1" : "");
        if (c != '~' && c != '/') {
            th_buf_putc(&b, c);
        }
    }
    return cel_string(cel_strdup(&e->a, th_buf_cstr(&b), b.n), b.n);
}
