/* mesh/node_message.c -- a node as bytes that ranks of one program send each other. */
#include "mesh/topology_internal.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Counts and plain members, then the arrays, then texts with their NUL. */
struct head {
    int32_t num_gpus, num_nics, num_numas, num_warnings, links_kind, has_links, is_cpu;
    double gpu_gbps, nic_gbps;
};

tv_status_t tv_node_pack(const struct tv_node_read *node, char **bytes_out, int64_t *num_out)
{
    const struct tv_node_shape *s = &node->shape;
    char *text = NULL;
    size_t num = 0;
    FILE *out = open_memstream(&text, &num);
    if (out == NULL)
        return TV_ERR(TV_NO_MEMORY, "a message of a node");
    const size_t G = (size_t)s->num_gpus;
    const struct head head = {s->num_gpus,        s->num_nics,        s->num_numas,
                              node->warnings.num, (int)s->links_kind, s->links != NULL,
                              s->is_cpu,          s->gpu_gbps,        s->nic_gbps};
    fwrite(&head, sizeof(head), 1, out);
    fwrite(s->gpus, sizeof(*s->gpus), G, out);
    fwrite(s->nics, sizeof(*s->nics), (size_t)s->num_nics, out);
    if (s->links != NULL)
        fwrite(s->links, sizeof(*s->links), G * G, out);
    for (int k = 0; k < s->num_numas; k++) {
        const int32_t numbers[2] = {s->numas[k].os_index, s->numas[k].package};
        fwrite(numbers, sizeof(numbers), 1, out);
        fwrite(s->numas[k].cpus, strlen(s->numas[k].cpus) + 1, 1, out);
    }
    for (int w = 0; w < node->warnings.num; w++)
        fwrite(node->warnings.sentences[w], strlen(node->warnings.sentences[w]) + 1, 1, out);
    if (fclose(out) != 0) {
        free(text);
        return TV_ERR(TV_NO_MEMORY, "a message of a node");
    }
    *bytes_out = text;
    *num_out = (int64_t)num;
    return TV_OK;
}

struct cursor {
    const char *at;
    size_t left;
};

/* A copy of the next bytes, which the caller frees; NULL when they or memory are out. */
static void *take(struct cursor *c, size_t bytes)
{
    void *copy = bytes <= c->left ? malloc(bytes + 1) : NULL;
    if (copy != NULL && bytes > 0) {
        memcpy(copy, c->at, bytes);
        c->at += bytes;
        c->left -= bytes;
    }
    return copy;
}

static char *take_text(struct cursor *c)
{
    const size_t length = strnlen(c->at, c->left);
    return length < c->left ? take(c, length + 1) : NULL;
}

static int take_numas(struct cursor *c, struct tv_node_shape *s, int num)
{
    s->numas = calloc((size_t)num + 1, sizeof(*s->numas));
    for (int k = 0; s->numas != NULL && k < num; k++) {
        int32_t *numbers = take(c, 2 * sizeof(int32_t));
        char *cpus = take_text(c);
        if (numbers != NULL && cpus != NULL)
            s->numas[s->num_numas++] = (struct tv_numa){numbers[0], numbers[1], cpus};
        else
            free(cpus);
        free(numbers);
    }
    return s->numas != NULL && s->num_numas == num;
}

static int take_node(struct cursor *c, const struct head *head, struct tv_node_read *node)
{
    struct tv_node_shape *s = &node->shape;
    const size_t G = (size_t)head->num_gpus;
    s->gpus = take(c, G * sizeof(*s->gpus));
    s->nics = take(c, (size_t)head->num_nics * sizeof(*s->nics));
    s->links = head->has_links ? take(c, G * G * sizeof(*s->links)) : NULL;
    if (s->gpus == NULL || s->nics == NULL || (head->has_links && s->links == NULL) ||
        !take_numas(c, s, head->num_numas))
        return 0;
    s->num_gpus = head->num_gpus;
    s->num_nics = head->num_nics;
    s->links_kind = (tv_links_kind_t)head->links_kind;
    s->is_cpu = head->is_cpu;
    s->gpu_gbps = head->gpu_gbps;
    s->nic_gbps = head->nic_gbps;
    for (int w = 0; w < head->num_warnings; w++) {
        char *text = take_text(c);
        const tv_status_t status =
            text != NULL ? tv_warn(&node->warnings, "%s", text) : TV_NO_MEMORY;
        free(text);
        if (status != TV_OK)
            return 0;
    }
    return 1;
}

tv_status_t tv_node_unpack(const char *bytes, int64_t num, struct tv_node_read *node_out)
{
    struct cursor cursor = {bytes, (size_t)num};
    struct tv_node_read node = {0};
    struct head *head = take(&cursor, sizeof(*head));
    const int is_whole = head != NULL && take_node(&cursor, head, &node);
    free(head);
    if (!is_whole) {
        tv_node_read_free(&node);
        return TV_ERR(TV_NO_MEMORY, "a node of a message of %lld bytes", (long long)num);
    }
    *node_out = node;
    return TV_OK;
}
