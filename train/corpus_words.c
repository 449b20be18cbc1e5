/* train/corpus_words.c -- FILE, PATTERN, either with :WEIGHT, or Megatron-LM's WEIGHT FILE ... */
#include "train/corpus_words.h"
#include <glob.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_PATHS = 65536 };

static int is_number(const char *text)
{
    return text[0] != '\0' && text[strspn(text, "0123456789.")] == '\0';
}

/* Where the weight stands behind the name in a word, or NULL. */
static const char *weight_in(const char *word)
{
    const char *colon = strrchr(word, ':');
    return colon != NULL && colon != word && is_number(colon + 1) ? colon + 1 : NULL;
}

static tv_status_t add_path(struct tv_corpus_words *words, const char *path)
{
    if (words->num_paths == MAX_PATHS)
        return TV_ERR(TV_INVALID, "more than %d files", MAX_PATHS);
    char **paths = realloc(words->paths, ((size_t)words->num_paths + 1) * sizeof(*paths));
    if (paths == NULL)
        return TV_ERR(TV_NO_MEMORY, "%d file names", words->num_paths + 1);
    words->paths = paths;
    paths[words->num_paths] = strdup(path);
    if (paths[words->num_paths] == NULL)
        return TV_ERR(TV_NO_MEMORY, "%s: its name", path);
    words->num_paths++;
    return TV_OK;
}

/* The .idx of a pair goes with its .bin. */
static int is_index(const char *path)
{
    const size_t length = strlen(path);
    return length > 4 && strcmp(path + length - 4, ".idx") == 0;
}

static tv_status_t add_files(const char *flag, struct tv_corpus_words *words, const char *name)
{
    struct stat info;
    if (strpbrk(name, "*?[") == NULL || stat(name, &info) == 0)
        return add_path(words, name);
    glob_t found;
    const int failed = glob(name, 0, NULL, &found);
    if (failed != 0)
        return TV_ERR(TV_INVALID, "--%s %s: no file has such a name", flag, name);
    tv_status_t status = TV_OK;
    for (size_t i = 0; i < found.gl_pathc && status == TV_OK; i++) {
        if (!is_index(found.gl_pathv[i]))
            status = add_path(words, found.gl_pathv[i]);
    }
    globfree(&found);
    return status;
}

static tv_status_t add_source(const char *flag, struct tv_corpus_words *words, const char *name,
                              size_t length, const char *weight)
{
    const int source = words->num_sources;
    char *copy = strndup(name, length);
    if (copy == NULL)
        return TV_ERR(TV_NO_MEMORY, "%s: its name", name);
    words->first_path[source] = words->num_paths;
    tv_status_t status = add_files(flag, words, copy);
    free(copy);
    TV_TRY(status);
    if (words->num_paths == words->first_path[source])
        return TV_ERR(TV_INVALID, "--%s %s: only .idx files have such a name", flag, name);
    words->first_path[source + 1] = words->num_paths;
    words->num_sources++;
    if (weight == NULL)
        return TV_OK;
    words->weights[source] = strdup(weight);
    return words->weights[source] != NULL ? TV_OK : TV_ERR(TV_NO_MEMORY, "%s: its weight", name);
}

/* WEIGHT FILE WEIGHT FILE ... */
static tv_status_t add_pairs(const char *flag, const struct tv_option_list *list,
                             struct tv_corpus_words *words)
{
    for (int i = 0; i < list->num; i += 2) {
        if (i + 1 == list->num || !is_number(list->words[i]))
            return TV_ERR(TV_INVALID, "--%s: '%s' is not the WEIGHT of a FILE behind it", flag,
                          list->words[i]);
        const char *name = list->words[i + 1];
        TV_TRY(add_source(flag, words, name, strlen(name), list->words[i]));
    }
    return TV_OK;
}

static tv_status_t add_words(const char *flag, const struct tv_option_list *list,
                             struct tv_corpus_words *words)
{
    if (list->num > 1 && is_number(list->words[0]))
        return add_pairs(flag, list, words);
    for (int i = 0; i < list->num; i++) {
        const char *word = list->words[i], *weight = weight_in(word);
        if ((weight != NULL) != (weight_in(list->words[0]) != NULL))
            return TV_ERR(TV_INVALID, "--%s: %s has %s weight, %s has %s; give each one, or none",
                          flag, list->words[0], weight == NULL ? "a" : "no", word,
                          weight == NULL ? "none" : "one");
        const size_t length = weight != NULL ? (size_t)(weight - word) - 1 : strlen(word);
        TV_TRY(add_source(flag, words, word, length, weight));
    }
    return TV_OK;
}

tv_status_t tv_corpus_words_parse(const char *flag, const struct tv_option_list *list,
                                  struct tv_corpus_words *words_out)
{
    struct tv_corpus_words words = {0};
    words.weights = calloc((size_t)list->num, sizeof(*words.weights));
    words.first_path = calloc((size_t)list->num + 1, sizeof(*words.first_path));
    tv_status_t status = words.weights != NULL && words.first_path != NULL
                             ? add_words(flag, list, &words)
                             : TV_ERR(TV_NO_MEMORY, "%d words", list->num);
    if (status != TV_OK) {
        tv_corpus_words_free(&words);
        return status;
    }
    if (words.weights[0] == NULL) {
        free(words.weights);
        words.weights = NULL;
    }
    *words_out = words;
    return TV_OK;
}

void tv_corpus_words_free(struct tv_corpus_words *words)
{
    for (int i = 0; words->weights != NULL && i < words->num_sources; i++)
        free(words->weights[i]);
    for (int i = 0; i < words->num_paths; i++)
        free(words->paths[i]);
    free(words->weights);
    free(words->first_path);
    free(words->paths);
    *words = (struct tv_corpus_words){0};
}
