/* train/checkpoint_json.c -- what index.json and state.json share: members that must be there, digests, the head. */
#include "train/checkpoint_internal.h"
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

static const char format_name[] = "trivet checkpoint";

tv_status_t tv_member_int(const char *path, const char *what, const struct json_t *object,
                          const char *key, int64_t low, int64_t high, int64_t *value_out)
{
    const json_t *member = json_object_get(object, key);
    const int64_t value = json_integer_value(member);
    if (!json_is_integer(member))
        return TV_ERR(TV_BAD_FILE, "%s: %s: \"%s\" is missing or not a whole number", path, what,
                      key);
    if (value < low || value > high)
        return TV_ERR(TV_BAD_FILE,
                      "%s: %s: \"%s\" is %" PRId64 ", not between %" PRId64 " and %" PRId64, path,
                      what, key, value, low, high);
    *value_out = value;
    return TV_OK;
}

tv_status_t tv_member_real(const char *path, const char *what, const struct json_t *object,
                           const char *key, double *value_out)
{
    const json_t *member = json_object_get(object, key);
    if (!json_is_number(member))
        return TV_ERR(TV_BAD_FILE, "%s: %s: \"%s\" is missing or not a number", path, what, key);
    *value_out = json_number_value(member);
    return TV_OK;
}

tv_status_t tv_member_text(const char *path, const char *what, const struct json_t *object,
                           const char *key, const char **text_out)
{
    const char *text = json_string_value(json_object_get(object, key));
    if (text == NULL)
        return TV_ERR(TV_BAD_FILE, "%s: %s: \"%s\" is missing or not a text", path, what, key);
    *text_out = text;
    return TV_OK;
}

tv_status_t tv_member_object(const char *path, const struct json_t *object, const char *key,
                             struct json_t **member_out)
{
    json_t *member = json_object_get(object, key);
    if (!json_is_object(member))
        return TV_ERR(TV_BAD_FILE, "%s: \"%s\" is missing or not an object", path, key);
    *member_out = member;
    return TV_OK;
}

tv_status_t tv_member_digest(const char *path, const char *what, const struct json_t *object,
                             struct tv_file_digest *digest_out)
{
    const char *hex = NULL;
    uint64_t hash = 0;
    TV_TRY(tv_member_int(path, what, object, "bytes", 0, INT64_MAX, &digest_out->bytes));
    TV_TRY(tv_member_text(path, what, object, "xxh3", &hex));
    if (strlen(hex) != 16 || strspn(hex, "0123456789abcdef") != 16 ||
        sscanf(hex, "%" SCNx64, &hash) != 1)
        return TV_ERR(TV_BAD_FILE, "%s: %s: \"xxh3\" is not 16 hexadecimal digits", path, what);
    digest_out->hash = hash;
    return TV_OK;
}

struct json_t *tv_digest_json(const struct tv_file_digest *digest)
{
    char hex[17];
    snprintf(hex, sizeof(hex), "%016" PRIx64, digest->hash);
    return json_pack("{s:I, s:s}", "bytes", (json_int_t)digest->bytes, "xxh3", hex);
}

struct tv_file_digest tv_digest_of(const void *data, size_t bytes)
{
    return (struct tv_file_digest){(int64_t)bytes, XXH3_64bits(data, bytes)};
}

struct json_t *tv_checkpoint_json_new(void)
{
    return json_pack("{s:s, s:i}", "format", format_name, "version", TV_CHECKPOINT_VERSION);
}

tv_status_t tv_checkpoint_json(const char *path, const char *text, size_t bytes,
                               struct json_t **json_out)
{
    json_error_t error;
    const char *format = NULL;
    int64_t version = 0;
    json_t *json = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &error);
    if (json == NULL)
        return TV_ERR(TV_BAD_FILE, "%s: line %d: %s", path, error.line, error.text);
    tv_status_t status = TV_OK;
    if (!json_is_object(json))
        status = TV_ERR(TV_BAD_FILE, "%s is not a JSON object", path);
    if (status == TV_OK)
        status = tv_member_text(path, "its head", json, "format", &format);
    if (status == TV_OK && strcmp(format, format_name) != 0)
        status = TV_ERR(TV_BAD_FILE, "%s is a '%s', not a '%s'", path, format, format_name);
    if (status == TV_OK)
        status = tv_member_int(path, "its head", json, "version", 1, INT32_MAX, &version);
    if (status == TV_OK && version != TV_CHECKPOINT_VERSION)
        status = TV_ERR(TV_BAD_FILE, "%s: format version %" PRId64 "; this trivet reads %d", path,
                        version, TV_CHECKPOINT_VERSION);
    if (status == TV_OK)
        *json_out = json;
    else
        json_decref(json);
    return status;
}
