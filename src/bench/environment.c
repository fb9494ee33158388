/* environment.c - placeholder until the bench folder is filled */
typedef int llmsched_environment_placeholder;
