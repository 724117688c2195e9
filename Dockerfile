# The course, with the weights in it:  docker build -t minikv . && docker run --rm -p 8888:8888 minikv
FROM python:3.11-slim
RUN useradd --create-home --uid 1000 student \
    && install --directory --owner=student /home/student/minikv
USER 1000
ENV PATH=/home/student/.local/bin:$PATH
WORKDIR /home/student/minikv
COPY --chown=1000 . .
RUN pip install --no-cache-dir --user -e ".[notebooks,chat,fetch]" "jupyterlab>=4" \
    && minikv fetch smollm2-135m-instruct
EXPOSE 8888
WORKDIR /home/student/minikv/notebooks
CMD ["jupyter", "lab", "--ip=0.0.0.0", "--no-browser"]
