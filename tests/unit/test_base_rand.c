/* base/rand: shapes of what is drawn, repeatability, published hash vectors. */
#include "base/buf.h"
#include "base/rand.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void uuids_are_version_4_and_differ(void **state)
{
    (void)state;
    char a[TH_UUID_LEN];
    char b[TH_UUID_LEN];
    for (int i = 0; i < 100; i++) {
        assert_ptr_equal(th_rand_uuid(a), a);
        assert_int_equal(strlen(a), 36);
        assert_int_equal(strspn(a, "0123456789abcdef-"), 36);
        assert_int_equal(a[14], '4');
        assert_non_null(strchr("89ab", a[19]));
        assert_true(a[8] == '-' && a[13] == '-' && a[18] == '-' && a[23] == '-');
        assert_string_not_equal(a, th_rand_uuid(b));
    }
}

static void suffixes_use_the_safe_alphabet(void **state)
{
    (void)state;
    char buf[6];
    for (int i = 0; i < 200; i++) {
        th_rand_suffix(buf, 5);
        assert_int_equal(strlen(buf), 5);
        assert_int_equal(strspn(buf, "bcdfghjklmnpqrstvwxz2456789"), 5);
    }
    assert_string_equal(th_rand_suffix(buf, 0), "");
}

static void below_covers_its_range_and_no_more(void **state)
{
    (void)state;
    bool seen[7] = {false};
    for (int i = 0; i < 1000; i++) {
        uint64_t v = th_rand_below(7);
        assert_true(v < 7);
        seen[v] = true;
    }
    for (size_t i = 0; i < 7; i++) {
        assert_true(seen[i]);
    }
    assert_int_equal(th_rand_below(1), 0);
}

static void siphash_1_3_vectors(void **state)
{
    (void)state;
    /* key 00..0f over the bytes 00, 01, ..., n-1: the reference implementation's own results */
    static const uint64_t key[2] = {0x0706050403020100u, 0x0f0e0d0c0b0a0908u};
    unsigned char in[64];
    for (size_t i = 0; i < sizeof(in); i++) {
        in[i] = (unsigned char)i;
    }
    assert_int_equal(th_siphash(in, 0, key), 0xabac0158050fc4dcu);
    assert_int_equal(th_siphash(in, 1, key), 0xc9f49bf37d57ca93u);
    uint64_t last = 0;
    for (size_t n = 0; n < sizeof(in); n++) {
        uint64_t h = th_siphash(in, n, key);
        assert_int_not_equal(h, last);
        last = h;
    }
    assert_int_equal(th_hash64("abc", 3), th_hash64("abc", 3));
    assert_int_not_equal(th_hash64("abc", 3), th_hash64("abd", 3));
    assert_int_not_equal(th_hash64("", 0), th_hash64("\0", 1));
}

static void fnv_vectors(void **state)
{
    (void)state;
    assert_int_equal(th_fnv32a("", 0, TH_FNV32A_INIT), 0x811c9dc5u);
    assert_int_equal(th_fnv32a("a", 1, TH_FNV32A_INIT), 0xe40c292cu);
    assert_int_equal(th_fnv32a("foobar", 6, TH_FNV32A_INIT), 0xbf9cf968u);
    uint32_t h = th_fnv32a("foo", 3, TH_FNV32A_INIT);
    assert_int_equal(th_fnv32a("bar", 3, h), 0xbf9cf968u);
}

/* Last: seeding lasts for the rest of the process. */
static void a_seed_repeats_the_stream(void **state)
{
    (void)state;
    char a[64];
    char b[64];
    th_rand_seed(42);
    th_rand_bytes(a, sizeof(a));
    uint64_t x = th_rand_u64();
    th_rand_seed(42);
    th_rand_bytes(b, sizeof(b));
    assert_memory_equal(a, b, sizeof(a));
    assert_int_equal(th_rand_u64(), x);
    th_rand_seed(43);
    th_rand_bytes(b, sizeof(b));
    assert_memory_not_equal(a, b, sizeof(a));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(uuids_are_version_4_and_differ),
        cmocka_unit_test(suffixes_use_the_safe_alphabet),
        cmocka_unit_test(below_covers_its_range_and_no_more),
        cmocka_unit_test(siphash_1_3_vectors),
        cmocka_unit_test(fnv_vectors),
        cmocka_unit_test(a_seed_repeats_the_stream),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
