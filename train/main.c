/* train/main.c -- the `trivet` program: picks the command. */
#include "train/commands.h"
#include <stdio.h>
#include <string.h>

static void print_usage(FILE *out)
{
    fputs("Usage: trivet COMMAND [flags]\n"
          "\n"
          "  train      train a GPT-2 or Llama model over a mesh of ranks\n"
          "  map        lay a mesh of ranks over machines so that messages cost least\n"
          "  schedule   draw, time, compare and run pipeline schedules\n"
          "  tokenize   turn text into token files\n"
          "  bench      measure a part of trivet on this machine\n"
          "\n"
          "trivet COMMAND --help lists a command's flags; trivet --version prints the build.\n",
          out);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        print_usage(stderr);
        return 2;
    }
    if (strcmp(argv[1], "train") == 0)
        return tv_command_train(argc - 1, argv + 1);
    if (strcmp(argv[1], "map") == 0)
        return tv_command_map(argc - 1, argv + 1);
    if (strcmp(argv[1], "bench") == 0)
        return tv_command_bench(argc - 1, argv + 1);
    if (strcmp(argv[1], "schedule") == 0)
        return tv_command_schedule(argc - 1, argv + 1);
    if (strcmp(argv[1], "tokenize") == 0)
        return tv_command_tokenize(argc - 1, argv + 1);
    if (strcmp(argv[1], "--version") == 0)
        return tv_command_version();
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0) {
        print_usage(stdout);
        return 0;
    }
    fprintf(stderr, "trivet: unknown command %s; see trivet --help\n", argv[1]);
    return 2;
}
