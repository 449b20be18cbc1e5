/* train/main.c -- the `trivet` program: picks the command. */
#include "train/commands.h"
#include "train/file_faults.h"
#include "train/ranks.h"
#include "train/terminal.h"
#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} commands[] = {
    {"train", tv_command_train, "train a GPT-2 or Llama model over a mesh of ranks"},
    {"map", tv_command_map, "lay a mesh of ranks over machines so that messages cost least"},
    {"schedule", tv_command_schedule, "draw, time, compare and run pipeline schedules"},
    {"bench", tv_command_bench, "measure a part of trivet on this machine"},
    {"tokenize", tv_command_tokenize, "turn text into token files"},
    {"sample", tv_command_sample, "print text that a trained model goes on with"},
    {"convert", tv_command_convert, "write a model as a Hugging Face folder"},
    {"inspect", tv_command_inspect, "print what a model or token file holds, and verify it"},
};
enum { NUM_COMMANDS = sizeof(commands) / sizeof(commands[0]) };

static void print_usage(FILE *out)
{
    fputs("Usage: trivet COMMAND [flags]\n\n", out);
    for (int i = 0; i < NUM_COMMANDS; i++)
        fprintf(out, "  %-9s  %s\n", commands[i].name, commands[i].help);
    fputs("\ntrivet COMMAND --help lists a command's flags; trivet --version prints the build.\n",
          out);
}

static int run_command(int command, int argc, char **argv)
{
    const tv_status_t status = tv_file_faults_catch();
    if (status != TV_OK) {
        tv_print_error();
        return tv_status_exit_code(status);
    }
    return commands[command].run(argc, argv);
}

static int run(int argc, char **argv)
{
    if (argc < 2) {
        print_usage(stderr);
        return 2;
    }
    for (int i = 0; i < NUM_COMMANDS; i++) {
        if (strcmp(argv[1], commands[i].name) == 0)
            return run_command(i, argc - 1, argv + 1);
    }
    if (strcmp(argv[1], "--version") == 0)
        return tv_command_version();
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0) {
        print_usage(stdout);
        return 0;
    }
    fprintf(stderr, "trivet: unknown command %s; see trivet --help\n", argv[1]);
    return 2;
}

/* What was printed has to arrive; a command that failed has said why already. */
int main(int argc, char **argv)
{
    const int exit_code = run(argc, argv);
    if (exit_code != 0)
        return exit_code;
    const tv_status_t status = tv_output_check();
    if (status != TV_OK)
        tv_print_error();
    return tv_status_exit_code(status);
}
