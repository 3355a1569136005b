#ifndef TH_API_ADMISSION_REVIEW_H
#define TH_API_ADMISSION_REVIEW_H
/* A write as webhooks and policies see it: what is done to which resource by whom, with the object
 * before and after, in any version that the object is served in. Lives on one request's stack. */
#include "controlplane/api/admission/admission.h"

#define TH_ADMIT_FORMS 16
struct th_admit_form {
    const struct th_resource *res;
    struct th_json *object, *old; /* owned; NULL when there is none */
};
struct th_hookset;
struct th_admit {
    struct th_call *c;
    const char *op; /* "CREATE", "UPDATE", "DELETE", "CONNECT" */
    const char *name, *ns; /* "" when not known or not there */
    /* As the request's resource (or subresource) has it; object is NULL on DELETE, old on CREATE and
     * CONNECT. Borrowed, or owned by the review where a subresource shows something else. */
    struct th_json *object;
    const struct th_json *old;
    /* ---- inside ---- */
    char *name_copy; /* what name points to: mutators change the object that it is from */
    struct th_hookset *set; /* what is configured */
    struct th_json *target;           /* the whole object that a subresource's object is part of */
    const struct th_json *target_old;
    struct th_json *shown, *shown_old; /* what the subresource shows of them; owned */
    struct th_json *options, *ns_object, *user; /* owned, made on first use */
    struct th_admit_form forms[TH_ADMIT_FORMS];
    size_t n_forms;
    bool reinvoking, reinvoke;
    struct th_strv seen, policies_seen, again; /* mutators that may be called again; that must be */
    struct th_json *last_output, *policies_output; /* the object as they left it */
};
/* The names that rules are matched against. */
struct th_match_key {
    const char *op, *group, *version, *plural, *sub, *ns, *name;
};

/* False when nothing is configured that could be asked (then there is nothing to end). */
bool th_admit_begin(struct th_admit *a, struct th_call *c, const char *op, struct th_json *obj,
                    const struct th_json *old);
void th_admit_end(struct th_admit *a);
struct th_match_key th_admit_key(const struct th_admit *a, const struct th_resource *as);
/* The other rows that serve the same objects; NULL past the end. */
const struct th_resource *th_admit_equivalent(struct th_admit *a, size_t i);
/* The Namespace that the request is in; borrowed. TH_R_NOT_FOUND. */
int th_admit_namespace(struct th_admit *a, const struct th_json **ret, struct th_err *err) TH_MUST_USE;
/* Object and old object as a row serves them; borrowed until the object changes. */
int th_admit_form(struct th_admit *a, const struct th_resource *as, struct th_json **ret_object,
                  const struct th_json **ret_old, struct th_err *err) TH_MUST_USE;
/* Puts a changed object (taken), in the form of a row, in the place of the request's: checked against
 * its type, with defaults. *ret_changed says whether it differs. */
int th_admit_replace(struct th_admit *a, const struct th_resource *as, struct th_json *object,
                     bool *ret_changed, struct th_err *err) TH_MUST_USE;
/* AdmissionRequest as the row, without object, oldObject and uid: what CEL's `request` is, too. The
 * caller's. */
struct th_json *th_admit_request(struct th_admit *a, const struct th_resource *as);
/* {group, version, kind} of the object as the row. */
struct th_json *th_admit_kind(const struct th_admit *a, const struct th_resource *as);
/* Forbidden as upstream's admission.NewForbidden words it. */
int th_admit_forbidden(const struct th_admit *a, struct th_err *err, const char *fmt, ...)
    TH_PRINTF(3, 4);
/* What is asked about at all: not the configurations of admission themselves. */
bool th_admit_exempt(const struct th_call *c);
#endif
