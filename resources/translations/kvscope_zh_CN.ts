<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE TS>
<TS version="2.1" language="zh_CN" sourcelanguage="en">
  <context>
    <name>About</name>
    <message>
      <source>About KVScope</source>
      <translation>关于 KVScope</translation>
    </message>
    <message>
      <source>Inspector for the KV-cache scales of LLM checkpoints: will the engine's attention layers really receive them, and if not, why, and how is it fixed? Free software under the Apache License 2.0.</source>
      <translation>大语言模型检查点的 KV 缓存缩放因子检查器：引擎的注意力层真的会收到它们吗？如果不会，为什么，又该如何修复？按 Apache 2.0 许可证发布的自由软件。</translation>
    </message>
    <message>
      <source>Copy for a report</source>
      <translation>复制以便报告问题</translation>
    </message>
    <message>
      <source>Versions</source>
      <translation>版本</translation>
    </message>
  </context>
  <context>
    <name>Actions</name>
    <message>
      <source>&amp;File</source>
      <translation>文件(&amp;F)</translation>
    </message>
    <message>
      <source>&amp;Edit</source>
      <translation>编辑(&amp;E)</translation>
    </message>
    <message>
      <source>&amp;View</source>
      <translation>视图(&amp;V)</translation>
    </message>
    <message>
      <source>&amp;Checkpoint</source>
      <translation>检查点(&amp;C)</translation>
    </message>
    <message>
      <source>E&amp;ngine</source>
      <translation>引擎(&amp;N)</translation>
    </message>
    <message>
      <source>&amp;Tools</source>
      <translation>工具(&amp;T)</translation>
    </message>
    <message>
      <source>&amp;Help</source>
      <translation>帮助(&amp;H)</translation>
    </message>
    <message>
      <source>Open &amp;Recent</source>
      <translation>打开最近的检查点(&amp;R)</translation>
    </message>
    <message>
      <source>Open &amp;Sample</source>
      <translation>打开示例(&amp;S)</translation>
    </message>
    <message>
      <source>&amp;Theme</source>
      <translation>主题(&amp;T)</translation>
    </message>
    <message>
      <source>&amp;Engine</source>
      <translation>引擎(&amp;E)</translation>
    </message>
    <message>
      <source>&amp;Backend</source>
      <translation>后端(&amp;B)</translation>
    </message>
    <message>
      <source>&amp;Open File…</source>
      <translation>打开文件(&amp;O)…</translation>
    </message>
    <message>
      <source>Open a safetensors or PyTorch file</source>
      <translation>打开 safetensors 或 PyTorch 文件</translation>
    </message>
    <message>
      <source>Open &amp;Folder…</source>
      <translation>打开文件夹(&amp;F)…</translation>
    </message>
    <message>
      <source>Open a checkpoint folder with all its shards</source>
      <translation>打开包含全部分片的检查点文件夹</translation>
    </message>
    <message>
      <source>Open &amp;Address…</source>
      <translation>打开地址(&amp;A)…</translation>
    </message>
    <message>
      <source>Open a checkpoint from a hub, web server or bucket; only headers are fetched</source>
      <translation>打开模型库、网页服务器或存储桶中的检查点；只读取头部</translation>
    </message>
    <message>
      <source>&amp;Close Checkpoint</source>
      <translation>关闭检查点(&amp;C)</translation>
    </message>
    <message>
      <source>Close the checkpoint; the last one leaves the start page</source>
      <translation>关闭检查点；关闭最后一个后回到起始页</translation>
    </message>
    <message>
      <source>&amp;Quit</source>
      <translation>退出(&amp;Q)</translation>
    </message>
    <message>
      <source>Stop running jobs and quit</source>
      <translation>停止正在运行的任务并退出</translation>
    </message>
    <message>
      <source>&amp;Undo Choice for Export</source>
      <translation>撤销导出选择(&amp;U)</translation>
    </message>
    <message>
      <source>Take back the last repair or target chosen for the export</source>
      <translation>撤回上一次为导出选择的修复或目标</translation>
    </message>
    <message>
      <source>&amp;Redo Choice for Export</source>
      <translation>重做导出选择(&amp;R)</translation>
    </message>
    <message>
      <source>Choose again what was taken back</source>
      <translation>重新选择刚才撤回的内容</translation>
    </message>
    <message>
      <source>&amp;Copy Key</source>
      <translation>复制键名(&amp;C)</translation>
    </message>
    <message>
      <source>Copy the selected keys, one a line</source>
      <translation>复制选中的键名，每行一个</translation>
    </message>
    <message>
      <source>Copy Row as &amp;JSON</source>
      <translation>将行复制为 JSON(&amp;J)</translation>
    </message>
    <message>
      <source>Copy the selected rows as the report's JSON</source>
      <translation>按报告的 JSON 格式复制选中的行</translation>
    </message>
    <message>
      <source>Copy Rows as &amp;Text</source>
      <translation>将行复制为文本(&amp;T)</translation>
    </message>
    <message>
      <source>Copy the selected rows with their heads, columns apart by tabs</source>
      <translation>复制选中的行及表头，列以制表符分隔</translation>
    </message>
    <message>
      <source>Copy Rows as C&amp;SV</source>
      <translation>将行复制为 CSV(&amp;S)</translation>
    </message>
    <message>
      <source>Copy the selected rows as a table for a spreadsheet, numbers with every digit</source>
      <translation>将选中的行复制为电子表格可用的表，数值保留全部位数</translation>
    </message>
    <message>
      <source>Copy &amp;Why</source>
      <translation>复制原因(&amp;W)</translation>
    </message>
    <message>
      <source>Copy the current key's story as text</source>
      <translation>以文本形式复制当前键的经过</translation>
    </message>
    <message>
      <source>&amp;Filter Keys</source>
      <translation>筛选键(&amp;F)</translation>
    </message>
    <message>
      <source>Go to the filter line</source>
      <translation>转到筛选框</translation>
    </message>
    <message>
      <source>C&amp;lear Filter</source>
      <translation>清除筛选(&amp;L)</translation>
    </message>
    <message>
      <source>Show every row again</source>
      <translation>重新显示所有行</translation>
    </message>
    <message>
      <source>&amp;All Tensors</source>
      <translation>所有张量(&amp;A)</translation>
    </message>
    <message>
      <source>List every tensor of the checkpoint, not the scales alone</source>
      <translation>列出检查点的每个张量，而不只是缩放因子</translation>
    </message>
    <message>
      <source>&amp;Groups</source>
      <translation>分组(&amp;G)</translation>
    </message>
    <message>
      <source>Show patterns, modules and shards beside the keys</source>
      <translation>在键旁显示模式、模块和分片</translation>
    </message>
    <message>
      <source>Go Bac&amp;k</source>
      <translation>后退(&amp;K)</translation>
    </message>
    <message>
      <source>Select what was selected before</source>
      <translation>选中此前选中的内容</translation>
    </message>
    <message>
      <source>Go For&amp;ward</source>
      <translation>前进(&amp;W)</translation>
    </message>
    <message>
      <source>Undo going back</source>
      <translation>撤销后退</translation>
    </message>
    <message>
      <source>Next &amp;Checkpoint</source>
      <translation>下一个检查点(&amp;C)</translation>
    </message>
    <message>
      <source>Go to the checkpoint in the next tab</source>
      <translation>转到下一个标签页的检查点</translation>
    </message>
    <message>
      <source>Pre&amp;vious Checkpoint</source>
      <translation>上一个检查点(&amp;V)</translation>
    </message>
    <message>
      <source>Go to the checkpoint in the previous tab</source>
      <translation>转到上一个标签页的检查点</translation>
    </message>
    <message>
      <source>&amp;Problems</source>
      <translation>问题(&amp;P)</translation>
    </message>
    <message>
      <source>E&amp;ngines</source>
      <translation>引擎(&amp;N)</translation>
    </message>
    <message>
      <source>&amp;Backends</source>
      <translation>后端(&amp;B)</translation>
    </message>
    <message>
      <source>P&amp;lot</source>
      <translation>图表(&amp;L)</translation>
    </message>
    <message>
      <source>E&amp;xport Preview</source>
      <translation>导出预览(&amp;X)</translation>
    </message>
    <message>
      <source>GP&amp;U</source>
      <translation>GPU(&amp;U)</translation>
    </message>
    <message>
      <source>Con&amp;fig</source>
      <translation>配置(&amp;F)</translation>
    </message>
    <message>
      <source>The config files, with the fields that decided something</source>
      <translation>配置文件，并标出起决定作用的字段</translation>
    </message>
    <message>
      <source>L&amp;og</source>
      <translation>日志(&amp;O)</translation>
    </message>
    <message>
      <source>Follow the &amp;System</source>
      <translation>跟随系统(&amp;S)</translation>
    </message>
    <message>
      <source>&amp;Light</source>
      <translation>浅色(&amp;L)</translation>
    </message>
    <message>
      <source>&amp;Dark</source>
      <translation>深色(&amp;D)</translation>
    </message>
    <message>
      <source>Light or &amp;Dark</source>
      <translation>切换浅色/深色(&amp;D)</translation>
    </message>
    <message>
      <source>Switch between the light and the dark theme</source>
      <translation>在浅色与深色主题之间切换</translation>
    </message>
    <message>
      <source>&amp;Reload</source>
      <translation>重新载入(&amp;R)</translation>
    </message>
    <message>
      <source>Read the checkpoint again from disk</source>
      <translation>从磁盘重新读取检查点</translation>
    </message>
    <message>
      <source>S&amp;top Jobs</source>
      <translation>停止任务(&amp;T)</translation>
    </message>
    <message>
      <source>Cancel whatever is running</source>
      <translation>取消所有正在运行的任务</translation>
    </message>
    <message>
      <source>&amp;Next Problem</source>
      <translation>下一个问题(&amp;N)</translation>
    </message>
    <message>
      <source>Go to the next row that a problem concerns</source>
      <translation>转到下一个有问题的行</translation>
    </message>
    <message>
      <source>&amp;Previous Problem</source>
      <translation>上一个问题(&amp;P)</translation>
    </message>
    <message>
      <source>Go to the row before that a problem concerns</source>
      <translation>转到上一个有问题的行</translation>
    </message>
    <message>
      <source>&amp;Export…</source>
      <translation>导出(&amp;E)…</translation>
    </message>
    <message>
      <source>Preview a normalized copy of the checkpoint, then write it</source>
      <translation>预览规范化后的检查点副本，然后写出</translation>
    </message>
    <message>
      <source>Co&amp;mpare</source>
      <translation>比较(&amp;M)</translation>
    </message>
    <message>
      <source>Compare the scales with another checkpoint's</source>
      <translation>与另一个检查点的缩放因子比较</translation>
    </message>
    <message>
      <source>Copy S&amp;hell Command</source>
      <translation>复制命令行(&amp;H)</translation>
    </message>
    <message>
      <source>Copy the command line that says what the window shows</source>
      <translation>复制能给出窗口所示结果的命令行</translation>
    </message>
    <message>
      <source>&amp;Copy Report as JSON</source>
      <translation>将报告复制为 JSON(&amp;C)</translation>
    </message>
    <message>
      <source>Copy the whole report, as the command line prints it</source>
      <translation>复制整份报告，与命令行输出相同</translation>
    </message>
    <message>
      <source>&amp;Save Report…</source>
      <translation>保存报告(&amp;S)…</translation>
    </message>
    <message>
      <source>Save the report as one HTML file, JSON or text, to attach to an issue</source>
      <translation>将报告存为单个 HTML 文件、JSON 或文本，便于附在问题单上</translation>
    </message>
    <message>
      <source>&amp;Verify on GPU</source>
      <translation>在 GPU 上验证(&amp;V)</translation>
    </message>
    <message>
      <source>Run the real loader and compare what each layer holds with the prediction</source>
      <translation>运行真实的加载器，并将每层实际持有的值与预测比较</translation>
    </message>
    <message>
      <source>Back to &amp;Detected Values</source>
      <translation>恢复检测值(&amp;D)</translation>
    </message>
    <message>
      <source>Let engine, backend, architecture and dtypes follow the checkpoint again</source>
      <translation>让引擎、后端、架构和数据类型重新跟随检查点</translation>
    </message>
    <message>
      <source>&amp;Commands…</source>
      <translation>命令(&amp;C)…</translation>
    </message>
    <message>
      <source>Find any command by typing a part of its name</source>
      <translation>输入名称的一部分来查找任意命令</translation>
    </message>
    <message>
      <source>Renaming R&amp;ules…</source>
      <translation>改名规则(&amp;U)…</translation>
    </message>
    <message>
      <source>Write an out-of-tree backend's rules and see at once what they make of the keys</source>
      <translation>编写树外后端的规则，并立即查看其对各键的作用</translation>
    </message>
    <message>
      <source>&amp;Settings…</source>
      <translation>设置(&amp;S)…</translation>
    </message>
    <message>
      <source>Theme, language, the engine to begin with, and the limits of the rules</source>
      <translation>主题、语言、默认引擎和规则的界限</translation>
    </message>
    <message>
      <source>Forget &amp;Recent Checkpoints</source>
      <translation>清空最近打开的检查点(&amp;R)</translation>
    </message>
    <message>
      <source>&amp;Keyboard Shortcuts</source>
      <translation>键盘快捷键(&amp;K)</translation>
    </message>
    <message>
      <source>&amp;About KVScope</source>
      <translation>关于 KVScope(&amp;A)</translation>
    </message>
  </context>
  <context>
    <name>AddressDialog</name>
    <message>
      <source>Open Address</source>
      <translation>打开地址</translation>
    </message>
    <message>
      <source>Address of a checkpoint</source>
      <translation>检查点的地址</translation>
    </message>
    <message>
      <source>hf://ORG/NAME@REVISION, https://host/path/model.safetensors or its index, s3://bucket/folder, gs://bucket/folder. Configs, headers and scales are fetched, nothing else.</source>
      <translation>hf://ORG/NAME@REVISION、https://host/path/model.safetensors 或其索引、s3://bucket/folder、gs://bucket/folder。只获取配置、头部和缩放因子，别无其他。</translation>
    </message>
  </context>
  <context>
    <name>Backends</name>
    <message>
      <source>Predicting every backend</source>
      <translation>正在预测每个后端</translation>
    </message>
    <message>
      <source>backends</source>
      <translation>个后端</translation>
    </message>
    <message>
      <source>no quantization</source>
      <translation>未量化</translation>
    </message>
    <message>
      <source>Checkpoint key</source>
      <translation>检查点中的键</translation>
    </message>
    <message>
      <source>in force</source>
      <translation>当前生效</translation>
    </message>
    <message>
      <source>Verdict</source>
      <translation>结论</translation>
    </message>
  </context>
  <context>
    <name>BackendsPanel</name>
    <message>
      <source>Backends side by side</source>
      <translation>后端并列对照</translation>
    </message>
    <message>
      <source>There is no scale to compare backends on.</source>
      <translation>没有可用于比较后端的缩放因子。</translation>
    </message>
    <message>
      <source>Predicting every backend …</source>
      <translation>正在预测每个后端…</translation>
    </message>
    <message>
      <source>Predicting every backend</source>
      <translation>正在预测每个后端</translation>
    </message>
    <message>
      <source>Cancelled. Show this tab again to retry.</source>
      <translation>已取消。再次打开此标签页即可重试。</translation>
    </message>
    <message>
      <source>backends</source>
      <translation>个后端</translation>
    </message>
    <message>
      <source>KV-cache dtypes</source>
      <translation>种 KV 缓存数据类型</translation>
    </message>
    <message>
      <source>{keys} of {total} keys. All {backends} {what} of {engine} do the same with this checkpoint.</source>
      <translation>{total} 个键中的 {keys} 个。{engine} 的全部 {backends} {what}对此检查点的处理都相同。</translation>
    </message>
    <message>
      <source>{keys} of {total} keys. {backends} {what} of {engine} in {groups} groups; ≠ marks what another one does differently.</source>
      <translation>{total} 个键中的 {keys} 个。{engine} 的 {backends} {what}分为 {groups} 组；≠ 标出处理不同之处。</translation>
    </message>
  </context>
  <context>
    <name>Banner</name>
    <message>
      <source>Verdict</source>
      <translation>结论</translation>
    </message>
    <message>
      <source>Next problem</source>
      <translation>下一个问题</translation>
    </message>
    <message>
      <source>Fix by export</source>
      <translation>通过导出修复</translation>
    </message>
    <message>
      <source>Preview a copy of the checkpoint that this engine loads as intended</source>
      <translation>预览一份能被此引擎按预期加载的检查点副本</translation>
    </message>
    <message>
      <source>PREDICTED</source>
      <translation>预测</translation>
    </message>
    <message>
      <source>Worked out without loading the model; Verify on GPU makes it OBSERVED</source>
      <translation>未加载模型推算得出；“在 GPU 上验证”可将其变为实测</translation>
    </message>
    <message>
      <source>OBSERVED</source>
      <translation>实测</translation>
    </message>
    <message>
      <source>The loader ran, and every layer's values were read back</source>
      <translation>加载器已运行，并读回了每层的值</translation>
    </message>
    <message>
      <source>CONTRADICTED</source>
      <translation>不符</translation>
    </message>
    <message>
      <source>The loader ran, and did not do what was predicted</source>
      <translation>加载器已运行，但结果与预测不同</translation>
    </message>
    <message>
      <source>OK</source>
      <translation>正常</translation>
    </message>
    <message>
      <source>Degraded</source>
      <translation>降级</translation>
    </message>
    <message>
      <source>Fails</source>
      <translation>失败</translation>
    </message>
    <message>
      <source>Unknown</source>
      <translation>未知</translation>
    </message>
  </context>
  <context>
    <name>Canvas</name>
    <message>
      <source>Plot of scales</source>
      <translation>缩放因子图表</translation>
    </message>
    <message>
      <source>scale</source>
      <translation>缩放因子</translation>
    </message>
    <message>
      <source>{key}
{value}  (compared checkpoint)</source>
      <translation>{key}
{value}  (被比较的检查点)</translation>
    </message>
    <message>
      <source>layer</source>
      <translation>层</translation>
    </message>
    <message>
      <source>head of {role}</source>
      <translation>{role} 的头</translation>
    </message>
  </context>
  <context>
    <name>CommandPalette</name>
    <message>
      <source>Commands</source>
      <translation>命令</translation>
    </message>
    <message>
      <source>Type a part of a command's name</source>
      <translation>输入命令名称的一部分</translation>
    </message>
    <message>
      <source>Find a command</source>
      <translation>查找命令</translation>
    </message>
  </context>
  <context>
    <name>Commands</name>
    <message>
      <source>Open a file</source>
      <translation>打开文件</translation>
    </message>
    <message>
      <source>Checkpoints (*.safetensors *.json *.bin *.pt *.pth);;All files (*)</source>
      <translation>检查点 (*.safetensors *.json *.bin *.pt *.pth);;所有文件 (*)</translation>
    </message>
    <message>
      <source>Open a checkpoint folder</source>
      <translation>打开检查点文件夹</translation>
    </message>
    <message>
      <source>{count} key copied</source>
      <translation>已复制 {count} 个键名</translation>
    </message>
    <message>
      <source>{count} keys copied</source>
      <translation>已复制 {count} 个键名</translation>
    </message>
    <message>
      <source>{count} row copied as JSON</source>
      <translation>已将 {count} 行复制为 JSON</translation>
    </message>
    <message>
      <source>{count} rows copied as JSON</source>
      <translation>已将 {count} 行复制为 JSON</translation>
    </message>
    <message>
      <source>{count} row copied</source>
      <translation>已复制 {count} 行</translation>
    </message>
    <message>
      <source>{count} rows copied</source>
      <translation>已复制 {count} 行</translation>
    </message>
    <message>
      <source>Copying</source>
      <translation>正在复制</translation>
    </message>
    <message>
      <source>Copying was cancelled.</source>
      <translation>复制已取消。</translation>
    </message>
    <message>
      <source>Story copied</source>
      <translation>经过已复制</translation>
    </message>
    <message>
      <source>Command copied</source>
      <translation>命令已复制</translation>
    </message>
    <message>
      <source>Writing the report</source>
      <translation>正在生成报告</translation>
    </message>
    <message>
      <source>Report copied as JSON</source>
      <translation>报告已复制为 JSON</translation>
    </message>
    <message>
      <source>Save the report</source>
      <translation>保存报告</translation>
    </message>
    <message>
      <source>HTML (*.html);;JSON (*.json);;Text (*.txt)</source>
      <translation>HTML (*.html);;JSON (*.json);;文本 (*.txt)</translation>
    </message>
    <message>
      <source>{path} was not written: {error}</source>
      <translation>未能写入 {path}:{error}</translation>
    </message>
    <message>
      <source>Report saved to {path}</source>
      <translation>报告已保存到 {path}</translation>
    </message>
    <message>
      <source>The report was cancelled.</source>
      <translation>报告已取消。</translation>
    </message>
  </context>
  <context>
    <name>ComparePanel</name>
    <message>
      <source>Comparison</source>
      <translation>比较</translation>
    </message>
    <message>
      <source>Compare with…</source>
      <translation>比较对象…</translation>
    </message>
    <message>
      <source>Rows shown</source>
      <translation>显示的行</translation>
    </message>
    <message>
      <source>Differences</source>
      <translation>差异</translation>
    </message>
    <message>
      <source>Beyond the noise</source>
      <translation>超出噪声</translation>
    </message>
    <message>
      <source>All rows</source>
      <translation>所有行</translation>
    </message>
    <message>
      <source>Copy command</source>
      <translation>复制命令</translation>
    </message>
    <message>
      <source>Copy the command line that says the same</source>
      <translation>复制给出相同结果的命令行</translation>
    </message>
    <message>
      <source>End comparison</source>
      <translation>结束比较</translation>
    </message>
    <message>
      <source>A folder…</source>
      <translation>文件夹…</translation>
    </message>
    <message>
      <source>A file…</source>
      <translation>文件…</translation>
    </message>
    <message>
      <source>Compare with a checkpoint folder</source>
      <translation>与检查点文件夹比较</translation>
    </message>
    <message>
      <source>Compare with a file</source>
      <translation>与文件比较</translation>
    </message>
    <message>
      <source>Checkpoints (*.safetensors *.json *.bin *.pt *.pth);;All files (*)</source>
      <translation>检查点 (*.safetensors *.json *.bin *.pt *.pth);;所有文件 (*)</translation>
    </message>
    <message>
      <source>Reading {path} …</source>
      <translation>正在读取 {path}…</translation>
    </message>
    <message>
      <source>Comparing with {path} was cancelled.</source>
      <translation>与 {path} 的比较已取消。</translation>
    </message>
    <message>
      <source>Neither checkpoint holds a KV-cache scale.</source>
      <translation>两个检查点都不含 KV 缓存缩放因子。</translation>
    </message>
    <message>
      <source>Equal</source>
      <translation>相同</translation>
    </message>
    <message>
      <source>Equal after normalisation</source>
      <translation>规范化后相同</translation>
    </message>
    <message>
      <source>Different</source>
      <translation>不同</translation>
    </message>
    <message>
      <source>B: {name}   {counts}</source>
      <translation>B:{name}   {counts}</translation>
    </message>
    <message>
      <source>Compare this checkpoint's scales with another one's: choose it, or drop it here. Scales are matched by layer and role, so a rename is no difference.</source>
      <translation>将此检查点的缩放因子与另一个检查点的比较：请选择它，或将它拖放到这里。缩放因子按层和角色匹配，因此改名不算差异。</translation>
    </message>
  </context>
  <context>
    <name>Comparison</name>
    <message>
      <source>Change</source>
      <translation>变化</translation>
    </message>
    <message>
      <source>Layer</source>
      <translation>层</translation>
    </message>
    <message>
      <source>Role</source>
      <translation>角色</translation>
    </message>
    <message>
      <source>Value in A</source>
      <translation>A 中的值</translation>
    </message>
    <message>
      <source>Value in B</source>
      <translation>B 中的值</translation>
    </message>
    <message>
      <source>B / A</source>
      <translation>B / A</translation>
    </message>
    <message>
      <source>Key in A</source>
      <translation>A 中的键</translation>
    </message>
    <message>
      <source>Key in B</source>
      <translation>B 中的键</translation>
    </message>
    <message>
      <source>Same</source>
      <translation>相同</translation>
    </message>
    <message>
      <source>Renamed</source>
      <translation>改名</translation>
    </message>
    <message>
      <source>Changed, within noise</source>
      <translation>有变化，在噪声内</translation>
    </message>
    <message>
      <source>Changed</source>
      <translation>有变化</translation>
    </message>
    <message>
      <source>Only in B</source>
      <translation>仅在 B 中</translation>
    </message>
    <message>
      <source>Only in A</source>
      <translation>仅在 A 中</translation>
    </message>
    <message>
      <source>reshaped</source>
      <translation>形状改变</translation>
    </message>
    <message>
      <source>No ratio: the two hold differently many values, a zero or NaN</source>
      <translation>无比值：两者的值个数不同，或含有零或 NaN</translation>
    </message>
    <message>
      <source>{count} same</source>
      <translation>{count} 个相同</translation>
    </message>
    <message>
      <source>{count} renamed</source>
      <translation>{count} 个改名</translation>
    </message>
    <message>
      <source>{count} changed</source>
      <translation>{count} 个有变化</translation>
    </message>
    <message>
      <source>{count} only in B</source>
      <translation>{count} 个仅在 B 中</translation>
    </message>
    <message>
      <source>{count} only in A</source>
      <translation>{count} 个仅在 A 中</translation>
    </message>
  </context>
  <context>
    <name>ConfigPanel</name>
    <message>
      <source>Config files and shards</source>
      <translation>配置文件与分片</translation>
    </message>
    <message>
      <source>Text of the file</source>
      <translation>文件内容</translation>
    </message>
    <message>
      <source>Fields that decided something</source>
      <translation>起决定作用的字段</translation>
    </message>
    <message>
      <source>What is no longer there</source>
      <translation>已不存在的内容</translation>
    </message>
    <message>
      <source>{file}  ·  decided something</source>
      <translation>{file}  ·  起决定作用</translation>
    </message>
    <message>
      <source>metadata of {file}</source>
      <translation>{file} 的元数据</translation>
    </message>
    <message>
      <source>This checkpoint has neither a config file nor metadata.</source>
      <translation>此检查点既没有配置文件，也没有元数据。</translation>
    </message>
    <message>
      <source>{path} is no longer there. Shown is what was read when it was opened; its other config files were not read. Reload opens it again once it is back.</source>
      <translation>{path} 已不存在。这里显示的是打开时读到的内容；其他配置文件当时没有读取。恢复之后，“重新载入”会再次打开它。</translation>
    </message>
    <message>
      <source>{files}: no longer in {path}. Shown is what was read when it was opened; Reload judges without it.</source>
      <translation>{files}：已不在 {path} 中。这里显示的是打开时读到的内容；“重新载入”将不再依据它来判断。</translation>
    </message>
    <message>
      <source>is too large to show here</source>
      <translation>太大，无法在此显示</translation>
    </message>
    <message>
      <source>Open it in an editor.</source>
      <translation>请在编辑器中打开它。</translation>
    </message>
    <message>
      <source>is no longer there</source>
      <translation>已不存在</translation>
    </message>
    <message>
      <source>Reload the checkpoint.</source>
      <translation>请重新载入检查点。</translation>
    </message>
  </context>
  <context>
    <name>Core</name>
    <message>
      <source>{method} was not followed</source>
      <translation>未跟踪 {method}</translation>
    </message>
    <message>
      <source>no quantization method is called {method!r}</source>
      <translation>没有名为 {method!r} 的量化方法</translation>
    </message>
    <message>
      <source>Choose one of {choices}</source>
      <translation>请选择 {choices} 之一</translation>
    </message>
    <message>
      <source>, </source>
      <translation>、</translation>
    </message>
    <message>
      <source>is not TOML: {error}</source>
      <translation>不是 TOML：{error}</translation>
    </message>
    <message>
      <source>holds no [[rule]]</source>
      <translation>不含 [[rule]]</translation>
    </message>
    <message>
      <source>name and method are texts</source>
      <translation>name 和 method 必须是文本</translation>
    </message>
    <message>
      <source>Mend it at that place</source>
      <translation>请在该处修正</translation>
    </message>
    <message>
      <source>rule {number} is no table</source>
      <translation>规则 {number} 不是表</translation>
    </message>
    <message>
      <source>rule {number} has the unknown field {field!r}</source>
      <translation>规则 {number} 有未知字段 {field!r}</translation>
    </message>
    <message>
      <source>rule {number} has the kind {kind!r}</source>
      <translation>规则 {number} 的 kind 为 {kind!r}</translation>
    </message>
    <message>
      <source>rule {number} has no pattern</source>
      <translation>规则 {number} 没有 pattern</translation>
    </message>
    <message>
      <source>rule {number} has neither a replacement nor drop = true</source>
      <translation>规则 {number} 既没有 replacement，也没有 drop = true</translation>
    </message>
    <message>
      <source>rule {number} has a shard that is no text and no number</source>
      <translation>规则 {number} 的 shard 既不是文本也不是数字</translation>
    </message>
    <message>
      <source>Add at least one [[rule]] table</source>
      <translation>请至少添加一个 [[rule]] 表</translation>
    </message>
    <message>
      <source>Write them in quotes: name = "my-backend"</source>
      <translation>请写在引号内：name = "my-backend"</translation>
    </message>
    <message>
      <source>Begin it with [[rule]]</source>
      <translation>请以 [[rule]] 开头</translation>
    </message>
    <message>
      <source>Known are {choices}</source>
      <translation>已知的有 {choices}</translation>
    </message>
    <message>
      <source>Give it a pattern in quotes</source>
      <translation>请在引号内写出 pattern</translation>
    </message>
    <message>
      <source>Give it one of the two</source>
      <translation>请写出其中之一</translation>
    </message>
    <message>
      <source>Write shard = "k"</source>
      <translation>请写 shard = "k"</translation>
    </message>
    <message>
      <source>Mend the pattern</source>
      <translation>请修正 pattern</translation>
    </message>
    <message>
      <source>values of type {dtype} are not decoded</source>
      <translation>类型为 {dtype} 的值不解码</translation>
    </message>
    <message>
      <source>holds {values}, more than the {limit:,} that are read</source>
      <translation>含 {values}，超过读取上限 {limit:,}</translation>
    </message>
    <message>
      <source>no readable shard holds this key</source>
      <translation>没有可读的分片含此键</translation>
    </message>
    <message>
      <source>the index says it is in {shard}, which was not read: {problem}</source>
      <translation>索引称它在 {shard} 中，而该分片未能读取：{problem}</translation>
    </message>
    <message>
      <source>{file} {problem}. {remedy}</source>
      <translation>{file}：{problem}。{remedy}</translation>
    </message>
    <message>
      <source>{count:,} values</source>
      <translation>{count:,} 个值</translation>
    </message>
    <message>
      <source>was cut short: its tensors take {needed}, but only {there:,} follow its header</source>
      <translation>文件被截断：其张量需 {needed}，而头部之后只有 {there:,}</translation>
    </message>
    <message>
      <source>begins at data offset {begin:,} and leaves a hole: it should be {expected:,}</source>
      <translation>起始于数据偏移 {begin:,}，留下空洞：应为 {expected:,}</translation>
    </message>
    <message>
      <source>begins at data offset {begin:,} and overlaps another tensor: it should be {expected:,}</source>
      <translation>起始于数据偏移 {begin:,}，与另一张量重叠：应为 {expected:,}</translation>
    </message>
    <message>
      <source>{unused} after the last tensor belong to no tensor</source>
      <translation>最后一个张量之后有 {unused}不属于任何张量</translation>
    </message>
    <message>
      <source>{unused} of data belong to no tensor</source>
      <translation>有 {unused}数据不属于任何张量</translation>
    </message>
    <message>
      <source>{count:,} bytes</source>
      <translation>{count:,} 字节</translation>
    </message>
    <message>
      <source>Correct the file, or download it again.</source>
      <translation>请修正该文件，或重新下载。</translation>
    </message>
    <message>
      <source>is not valid JSON: {error}, line {line}, column {column}</source>
      <translation>不是有效的 JSON：{error}，第 {line} 行第 {column} 列</translation>
    </message>
    <message>
      <source>holds no JSON object</source>
      <translation>不含 JSON 对象</translation>
    </message>
    <message>
      <source>holds half of a surrogate pair, which is no text</source>
      <translation>含半个代理对，不是文本</translation>
    </message>
    <message>
      <source>is not JSON</source>
      <translation>不是 JSON</translation>
    </message>
    <message>
      <source>is not UTF-8 text</source>
      <translation>不是 UTF-8 文本</translation>
    </message>
    <message>
      <source>is nested too deeply</source>
      <translation>嵌套过深</translation>
    </message>
    <message>
      <source>holds a number that is too long</source>
      <translation>含过长的数字</translation>
    </message>
    <message>
      <source>{file}: {problem}. {remedy}</source>
      <translation>{file}：{problem}。{remedy}</translation>
    </message>
    <message>
      <source>{problem} (at byte {offset})</source>
      <translation>{problem}（在字节 {offset} 处）</translation>
    </message>
    <message>
      <source>Download or copy the file again.</source>
      <translation>请重新下载或复制该文件。</translation>
    </message>
    <message>
      <source>could not be read: {reason}</source>
      <translation>无法读取：{reason}</translation>
    </message>
    <message>
      <source>does not exist</source>
      <translation>不存在</translation>
    </message>
    <message>
      <source>Check the path.</source>
      <translation>请检查路径。</translation>
    </message>
    <message>
      <source>may not be read by this user</source>
      <translation>当前用户无权读取</translation>
    </message>
    <message>
      <source>Change its permissions, or copy it.</source>
      <translation>请更改其权限，或复制一份。</translation>
    </message>
    <message>
      <source>is a folder, not a file</source>
      <translation>是文件夹而不是文件</translation>
    </message>
    <message>
      <source>lies below a file, not a folder</source>
      <translation>上一级是文件而不是文件夹</translation>
    </message>
    <message>
      <source>is a link that leads back to itself</source>
      <translation>是指回自身的链接</translation>
    </message>
    <message>
      <source>has too long a name</source>
      <translation>名称过长</translation>
    </message>
    <message>
      <source>begins with nothing but zero bytes, as a download that never finished does</source>
      <translation>开头全是零字节，像是未完成的下载</translation>
    </message>
    <message>
      <source>is a Git LFS pointer; the tensors themselves were not downloaded</source>
      <translation>是 Git LFS 指针；张量本身尚未下载</translation>
    </message>
    <message>
      <source>Run `git lfs pull` in its repository, or download it with `hf download`.</source>
      <translation>请在其仓库中运行 `git lfs pull`，或用 `hf download` 下载。</translation>
    </message>
    <message>
      <source>is a web page, saved in place of the file</source>
      <translation>是代替该文件保存下来的网页</translation>
    </message>
    <message>
      <source>Download it again; a gated model needs a token, and a link must point at the raw file.</source>
      <translation>请重新下载；受限模型需要令牌，且链接须指向原始文件。</translation>
    </message>
    <message>
      <source>is a GGUF file, which KVScope does not support</source>
      <translation>是 KVScope 不支持的 GGUF 文件</translation>
    </message>
    <message>
      <source>Open the safetensors checkpoint from which it was converted.</source>
      <translation>请打开转换前的 safetensors 检查点。</translation>
    </message>
    <message>
      <source>is a JSON file</source>
      <translation>是 JSON 文件</translation>
    </message>
    <message>
      <source>Open the folder that holds it.</source>
      <translation>请打开它所在的文件夹。</translation>
    </message>
    <message>
      <source>is compressed</source>
      <translation>是压缩文件</translation>
    </message>
    <message>
      <source>Unpack it first.</source>
      <translation>请先解压。</translation>
    </message>
    <message>
      <source>is a link to a file that is not there</source>
      <translation>是指向不存在文件的链接</translation>
    </message>
    <message>
      <source>Check the disk or network share, then try again.</source>
      <translation>请检查磁盘或网络共享，然后重试。</translation>
    </message>
    <message>
      <source>is empty</source>
      <translation>为空</translation>
    </message>
    <message>
      <source>is a text file that begins with {start!r}</source>
      <translation>是以 {start!r} 开头的文本文件</translation>
    </message>
    <message>
      <source>ended while it was being read</source>
      <translation>读取过程中文件提前结束</translation>
    </message>
    <message>
      <source>changed since it was opened</source>
      <translation>打开之后已发生变化</translation>
    </message>
    <message>
      <source>is {size} long, more than the {largest:,} that KVScope reads of such a file</source>
      <translation>长 {size}，超过 KVScope 对此类文件的读取上限 {largest:,}</translation>
    </message>
    <message>
      <source>Download the checkpoint again.</source>
      <translation>请重新下载该检查点。</translation>
    </message>
    <message>
      <source>is not a regular file</source>
      <translation>不是普通文件</translation>
    </message>
    <message>
      <source>Wait until it is fully written.</source>
      <translation>请等它写完。</translation>
    </message>
    <message>
      <source>Open the checkpoint again.</source>
      <translation>请重新打开该检查点。</translation>
    </message>
    <message>
      <source>Check that it is the file it claims to be.</source>
      <translation>请确认它确是所称的文件。</translation>
    </message>
    <message>
      <source>Point KVScope at a file or a checkpoint folder.</source>
      <translation>请让 KVScope 打开文件或检查点文件夹。</translation>
    </message>
    <message>
      <source>was cut short: its header takes {length}, but only {rest:,} follow its length</source>
      <translation>文件被截断：其头部需 {length}，而长度字段之后只有 {rest:,}</translation>
    </message>
    <message>
      <source>is only {size} long, too short for a safetensors file</source>
      <translation>仅长 {size}，对 safetensors 文件来说太短</translation>
    </message>
    <message>
      <source>claims a header of {length:,} bytes; the format allows {largest:,}</source>
      <translation>声称头部有 {length:,} 字节；该格式最多允许 {largest:,}</translation>
    </message>
    <message>
      <source>claims a header of {length}, too short to be one</source>
      <translation>声称头部为 {length}，短得不可能是头部</translation>
    </message>
    <message>
      <source>has a header that does not begin with '{{'</source>
      <translation>头部不以 '{{' 开头</translation>
    </message>
    <message>
      <source>is a PyTorch file, not a safetensors file</source>
      <translation>是 PyTorch 文件，不是 safetensors 文件</translation>
    </message>
    <message>
      <source>Give it the ending .bin or .pt, with which KVScope reads it without running code.</source>
      <translation>请把扩展名改为 .bin 或 .pt，KVScope 便会在不运行代码的情况下读取它。</translation>
    </message>
    <message>
      <source>Download the index again, or write the checkpoint again with `save_pretrained`.</source>
      <translation>请重新下载索引，或用 `save_pretrained` 重新写出检查点。</translation>
    </message>
    <message>
      <source>names {keys} twice, {first} first; the last entry counts</source>
      <translation>有 {keys}重复列出，首先是 {first}；以最后一项为准</translation>
    </message>
    <message>
      <source>has no weight_map that says which shard holds each tensor</source>
      <translation>没有说明各张量在哪个分片中的 weight_map</translation>
    </message>
    <message>
      <source>names no file for {key}</source>
      <translation>没有为 {key} 指明文件</translation>
    </message>
    <message>
      <source>names {shard}, which is no file of this folder</source>
      <translation>所列的 {shard} 不是此文件夹中的文件</translation>
    </message>
    <message>
      <source>{count:,} keys</source>
      <translation>{count:,} 个键</translation>
    </message>
    <message>
      <source>safetensors files, or PyTorch's .bin, .pt or .pth</source>
      <translation>safetensors 文件，或 PyTorch 的 .bin、.pt、.pth 文件</translation>
    </message>
    <message>
      <source>is a Hugging Face cache folder with {count} snapshots, and its refs/main names none of them</source>
      <translation>是含 {count} 个快照的 Hugging Face 缓存文件夹，而其 refs/main 未指向其中任何一个</translation>
    </message>
    <message>
      <source>names {shards}, none of which is there; the folder's tensor files were read without it</source>
      <translation>列出 {shards}，却一个也不在；已在不用索引的情况下读取文件夹中的张量文件</translation>
    </message>
    <message>
      <source>names no shard; the folder's tensor files were read without it</source>
      <translation>未列出任何分片；已在不用索引的情况下读取文件夹中的张量文件</translation>
    </message>
    <message>
      <source>{files} not read: the model* files beside hold the same weights.</source>
      <translation>未读取 {files}：旁边的 model* 文件含相同的权重。</translation>
    </message>
    <message>
      <source>Its folder {folder} holds some: open that.</source>
      <translation>其文件夹 {folder} 中有张量：请打开它。</translation>
    </message>
    <message>
      <source>is a Hugging Face cache folder without a snapshot</source>
      <translation>是没有快照的 Hugging Face 缓存文件夹</translation>
    </message>
    <message>
      <source>Open one of them, for example snapshots/{snapshot}.</source>
      <translation>请打开其中一个，例如 snapshots/{snapshot}。</translation>
    </message>
    <message>
      <source>Remove the index, or download the shards that it names.</source>
      <translation>请删除索引，或下载它列出的分片。</translation>
    </message>
    <message>
      <source>{files} and others not read: {first} comes first.</source>
      <translation>未读取 {files} 等文件：优先读取 {first}。</translation>
    </message>
    <message>
      <source>{files} not read: {first} comes first.</source>
      <translation>未读取 {files}：优先读取 {first}。</translation>
    </message>
    <message>
      <source>holds GGUF files, which KVScope does not support</source>
      <translation>含 KVScope 不支持的 GGUF 文件</translation>
    </message>
    <message>
      <source>Open the checkpoint they were made from.</source>
      <translation>请打开用来生成它们的检查点。</translation>
    </message>
    <message>
      <source>holds built TensorRT engines, whose tensors have no names any more</source>
      <translation>含已构建的 TensorRT 引擎，其张量已没有名称</translation>
    </message>
    <message>
      <source>Open the checkpoint folder from which they were built (rank0.safetensors and config.json).</source>
      <translation>请打开用来构建它们的检查点文件夹（rank0.safetensors 和 config.json）。</translation>
    </message>
    <message>
      <source>is no name that a file can have</source>
      <translation>不能作为文件名</translation>
    </message>
    <message>
      <source>Download the model again.</source>
      <translation>请重新下载该模型。</translation>
    </message>
    <message>
      <source>holds only an index, {index}, and none of the {shards} that it names</source>
      <translation>只有索引 {index}，它列出的 {shards}一个也不在</translation>
    </message>
    <message>
      <source>holds only an index, {index}, and it names no shard</source>
      <translation>只有索引 {index}，且它未列出任何分片</translation>
    </message>
    <message>
      <source>{count:,} shards</source>
      <translation>{count:,} 个分片</translation>
    </message>
    <message>
      <source>holds an index without shards, and the index {problem}</source>
      <translation>只有索引而没有分片，且索引有误：{problem}</translation>
    </message>
    <message>
      <source>Download the shards into this folder.</source>
      <translation>请把分片下载到此文件夹。</translation>
    </message>
    <message>
      <source>is an empty folder</source>
      <translation>是空文件夹</translation>
    </message>
    <message>
      <source>Open a folder with {accepted}.</source>
      <translation>请打开含 {accepted} 的文件夹。</translation>
    </message>
    <message>
      <source>holds no tensors</source>
      <translation>不含张量</translation>
    </message>
    <message>
      <source>its only tensor file cannot be read: {file} {problem}</source>
      <translation>唯一的张量文件 {file} 无法读取：{problem}</translation>
    </message>
    <message>
      <source>none of its {count:,} tensor files can be read: {file} {problem}</source>
      <translation>其 {count:,} 个张量文件都无法读取：{file}：{problem}</translation>
    </message>
    <message>
      <source>reading headers</source>
      <translation>读取头部</translation>
    </message>
    <message>
      <source>shards</source>
      <translation>个分片</translation>
    </message>
    <message>
      <source>is named by the index, but is not there</source>
      <translation>索引列出了它，但它不存在</translation>
    </message>
    <message>
      <source>Download it into this folder.</source>
      <translation>请把它下载到此文件夹。</translation>
    </message>
    <message>
      <source>Convert it to safetensors where you trust it, and open that.</source>
      <translation>如果信任它，请转换为 safetensors 后再打开。</translation>
    </message>
    <message>
      <source>Download or copy it again; if it loads elsewhere, convert it to safetensors there.</source>
      <translation>请重新下载或复制；如果在别处能加载，请在那里转换为 safetensors。</translation>
    </message>
    <message>
      <source>was cut short: it is a PyTorch archive without its directory, which comes last</source>
      <translation>文件被截断：这是缺少末尾目录的 PyTorch 归档</translation>
    </message>
    <message>
      <source>is an archive with a damaged directory</source>
      <translation>是目录已损坏的归档</translation>
    </message>
    <message>
      <source>is a safetensors file, not a PyTorch file</source>
      <translation>是 safetensors 文件，不是 PyTorch 文件</translation>
    </message>
    <message>
      <source>is no PyTorch file</source>
      <translation>不是 PyTorch 文件</translation>
    </message>
    <message>
      <source>is a TorchScript program, not a set of tensors</source>
      <translation>是 TorchScript 程序，不是一组张量</translation>
    </message>
    <message>
      <source>is a zip archive, but none that PyTorch wrote</source>
      <translation>是 zip 归档，但不是 PyTorch 写出的</translation>
    </message>
    <message>
      <source>is a compressed archive, which PyTorch never writes</source>
      <translation>是压缩归档，而 PyTorch 从不写出这种归档</translation>
    </message>
    <message>
      <source>is an archive that claims to hold more than it does</source>
      <translation>是声称的内容多于实际的归档</translation>
    </message>
    <message>
      <source>holds a text of {size}, which names no tensor</source>
      <translation>含一段长 {size}的文本，不可能是张量名</translation>
    </message>
    <message>
      <source>is damaged: its pickle is cut short or holds what no pickle can</source>
      <translation>已损坏：其 pickle 被截断，或含 pickle 不可能有的内容</translation>
    </message>
    <message>
      <source>Give it the ending .safetensors.</source>
      <translation>请把扩展名改为 .safetensors。</translation>
    </message>
    <message>
      <source>holds no named tensors</source>
      <translation>不含有名称的张量</translation>
    </message>
    <message>
      <source>is no pickle of plain tensors, so PyTorch refuses to read it safely</source>
      <translation>不是只含普通张量的 pickle，PyTorch 拒绝安全读取它</translation>
    </message>
    <message>
      <source>cannot be read: {reason}</source>
      <translation>无法读取：{reason}</translation>
    </message>
    <message>
      <source>has no stored elements</source>
      <translation>没有存储的元素</translation>
    </message>
    <message>
      <source>repeats few stored elements many times</source>
      <translation>把少量存储的元素重复了许多次</translation>
    </message>
    <message>
      <source>Open the file that holds the model's state dict.</source>
      <translation>请打开含模型 state dict 的文件。</translation>
    </message>
    <message>
      <source>asks to run {what} while it is read, which KVScope never does: only tensors are read</source>
      <translation>读取时要求运行 {what}，而 KVScope 绝不这样做：只读取张量</translation>
    </message>
    <message>
      <source>no longer holds {name}</source>
      <translation>不再含有 {name}</translation>
    </message>
    <message>
      <source>is a PyTorch file, and PyTorch is not installed</source>
      <translation>是 PyTorch 文件，而 PyTorch 未安装</translation>
    </message>
    <message>
      <source>`pip install torch`.</source>
      <translation>请运行 `pip install torch`。</translation>
    </message>
    <message>
      <source>is damaged: PyTorch says {reason}</source>
      <translation>已损坏：PyTorch 报告 {reason}</translation>
    </message>
    <message>
      <source>tensor {name} {problem}</source>
      <translation>张量 {name}：{problem}</translation>
    </message>
    <message>
      <source>Write hf://ORG/NAME, or hf://ORG/NAME@REVISION</source>
      <translation>请写作 hf://ORG/NAME 或 hf://ORG/NAME@REVISION</translation>
    </message>
    <message>
      <source>is a dataset, not a model</source>
      <translation>是数据集，不是模型</translation>
    </message>
    <message>
      <source>is a space, not a model</source>
      <translation>是 Space，不是模型</translation>
    </message>
    <message>
      <source>is a file in a chain of file systems, of which checkpoints alone are read</source>
      <translation>是文件系统链中的文件，而链中只能读取检查点</translation>
    </message>
    <message>
      <source>names no server</source>
      <translation>没有指明服务器</translation>
    </message>
    <message>
      <source>is no address of a model</source>
      <translation>不是模型的地址</translation>
    </message>
    <message>
      <source>names no file in a folder</source>
      <translation>没有指明文件夹中的文件</translation>
    </message>
    <message>
      <source>Download the file and name it.</source>
      <translation>请下载该文件并指明它。</translation>
    </message>
    <message>
      <source>Write https://host/path/model.safetensors</source>
      <translation>请写作 https://host/path/model.safetensors</translation>
    </message>
    <message>
      <source>is a page of the hub that holds no model's files</source>
      <translation>是 Hub 上不含模型文件的页面</translation>
    </message>
    <message>
      <source>Install the extra: pip install 'kvscope[remote]'</source>
      <translation>请安装可选依赖：pip install 'kvscope[remote]'</translation>
    </message>
    <message>
      <source>needs {package}, which is not installed</source>
      <translation>需要 {package}，而它未安装</translation>
    </message>
    <message>
      <source>asking {address}</source>
      <translation>查询 {address}</translation>
    </message>
    <message>
      <source>fetching headers</source>
      <translation>获取头部</translation>
    </message>
    <message>
      <source>there is no such folder, or no safetensors file in it</source>
      <translation>没有这个文件夹，或其中没有 safetensors 文件</translation>
    </message>
    <message>
      <source>was not fetched</source>
      <translation>未获取</translation>
    </message>
    <message>
      <source>holds pickled PyTorch files, which cannot be read in part</source>
      <translation>含 pickle 格式的 PyTorch 文件，无法只读取一部分</translation>
    </message>
    <message>
      <source>there is no such file</source>
      <translation>没有这个文件</translation>
    </message>
    <message>
      <source>Check the address.</source>
      <translation>请检查地址。</translation>
    </message>
    <message>
      <source>is {size:,} bytes long, but was listed with {listed:,}</source>
      <translation>长 {size:,} 字节，而列表中为 {listed:,}</translation>
    </message>
    <message>
      <source>Open it by its own address.</source>
      <translation>请用它自己的地址打开。</translation>
    </message>
    <message>
      <source>Download the checkpoint and open the folder, or choose one in safetensors.</source>
      <translation>请下载该检查点并打开文件夹，或选择 safetensors 格式的检查点。</translation>
    </message>
    <message>
      <source>Open it again.</source>
      <translation>请重新打开。</translation>
    </message>
    <message>
      <source>packages</source>
      <translation>一些软件包</translation>
    </message>
    <message>
      <source>Try again later: it may be changing.</source>
      <translation>请稍后重试：它可能正在变化。</translation>
    </message>
    <message>
      <source>{name} changed while it was read</source>
      <translation>{name} 在读取过程中发生了变化</translation>
    </message>
    <message>
      <source>Try again.</source>
      <translation>请重试。</translation>
    </message>
    <message>
      <source>Check the address, the network and the endpoint that is configured.</source>
      <translation>请检查地址、网络和所配置的端点。</translation>
    </message>
    <message>
      <source>does not say how long {file} is</source>
      <translation>没有说明 {file} 的长度</translation>
    </message>
    <message>
      <source>sends {got} of {file} where {asked:,} were asked for</source>
      <translation>请求 {file} 的 {asked:,} 字节，却收到 {got}</translation>
    </message>
    <message>
      <source>needs a package that is not installed: {reason}</source>
      <translation>需要未安装的软件包：{reason}</translation>
    </message>
    <message>
      <source>Install it beside kvscope[remote].</source>
      <translation>请在 kvscope[remote] 之外安装它。</translation>
    </message>
    <message>
      <source>Download the checkpoint.</source>
      <translation>请下载该检查点。</translation>
    </message>
    <message>
      <source>does not serve parts of files, so that headers cannot be read alone</source>
      <translation>不支持读取文件的一部分，因此无法只读取头部</translation>
    </message>
    <message>
      <source>Try again later.</source>
      <translation>请稍后重试。</translation>
    </message>
    <message>
      <source>cannot be reached: {reason}</source>
      <translation>无法连接：{reason}</translation>
    </message>
    <message>
      <source>refuses access: {reason}</source>
      <translation>拒绝访问：{reason}</translation>
    </message>
    <message>
      <source>Check the credentials and what they may read.</source>
      <translation>请检查凭据及其读取权限。</translation>
    </message>
    <message>
      <source>Download the checkpoint and open the folder.</source>
      <translation>请下载该检查点并打开文件夹。</translation>
    </message>
    <message>
      <source>no credentials were found: {reason}</source>
      <translation>未找到凭据：{reason}</translation>
    </message>
    <message>
      <source>Configure them as for the service's own tools.</source>
      <translation>请像配置该服务自带的工具那样配置凭据。</translation>
    </message>
    <message>
      <source>is of a kind that is not known: {reason}</source>
      <translation>是未知的地址类型：{reason}</translation>
    </message>
    <message>
      <source>Known are hf://, https://, s3://, gs:// and whatever else fsspec opens.</source>
      <translation>已知的有 hf://、https://、s3://、gs:// 以及 fsspec 能打开的其他地址。</translation>
    </message>
    <message>
      <source>Check the address, the network and the proxy settings, then try again.</source>
      <translation>请检查地址、网络和代理设置，然后重试。</translation>
    </message>
    <message>
      <source>does not serve parts of files (it ignores Range), so that headers cannot be read alone</source>
      <translation>不提供文件的部分内容（忽略 Range），因此无法只读取头部</translation>
    </message>
    <message>
      <source>broke off its answer after {received:,} of {promised}</source>
      <translation>应答在收到 {received:,}（共 {promised}）后中断</translation>
    </message>
    <message>
      <source>fails to answer ({status})</source>
      <translation>未能应答（{status}）</translation>
    </message>
    <message>
      <source>huggingface_hub makes connections of an unknown kind here</source>
      <translation>此处的 huggingface_hub 使用未知类型的连接</translation>
    </message>
    <message>
      <source>answers with compressed bytes, which were not asked for</source>
      <translation>返回了未请求的压缩字节</translation>
    </message>
    <message>
      <source>does not say which bytes it sends, and of how many</source>
      <translation>没有说明发送的是哪些字节以及总数</translation>
    </message>
    <message>
      <source>sends bytes {first:,} to {last:,} where {begin:,} to {end:,} were asked for</source>
      <translation>请求字节 {begin:,} 至 {end:,}，却收到 {first:,} 至 {last:,}</translation>
    </message>
    <message>
      <source>is more than the {largest:,} that KVScope reads of such a file</source>
      <translation>超过 KVScope 对此类文件的读取上限 {largest:,}</translation>
    </message>
    <message>
      <source>sends more than the {promised:,} bytes that it promised</source>
      <translation>发送的字节多于所承诺的 {promised:,} 字节</translation>
    </message>
    <message>
      <source>asks to wait: too many requests (429)</source>
      <translation>要求等待：请求过多（429）</translation>
    </message>
    <message>
      <source>Wait some minutes, then try again.</source>
      <translation>请等待几分钟，然后重试。</translation>
    </message>
    <message>
      <source>Install the versions that go with KVScope: pip install 'kvscope[remote]'</source>
      <translation>请安装与 KVScope 配套的版本：pip install 'kvscope[remote]'</translation>
    </message>
    <message>
      <source>answers with a part where all was asked for</source>
      <translation>请求的是全部内容，却只返回一部分</translation>
    </message>
    <message>
      <source>did not answer for {seconds:g} seconds</source>
      <translation>在 {seconds:g} 秒内没有应答</translation>
    </message>
    <message>
      <source>leads in circles: each address redirects to another</source>
      <translation>循环重定向：每个地址都指向另一个</translation>
    </message>
    <message>
      <source>leads to no web address: {reason}</source>
      <translation>指向的不是网址：{reason}</translation>
    </message>
    <message>
      <source>broke off its answer: {reason}</source>
      <translation>应答中断：{reason}</translation>
    </message>
    <message>
      <source>was not asked: HF_HUB_OFFLINE is set</source>
      <translation>未查询：设置了 HF_HUB_OFFLINE</translation>
    </message>
    <message>
      <source>Unset it.</source>
      <translation>请取消该设置。</translation>
    </message>
    <message>
      <source>log in with `hf auth login` or set HF_TOKEN</source>
      <translation>用 `hf auth login` 登录或设置 HF_TOKEN</translation>
    </message>
    <message>
      <source>{hub} has no such model, or it is private</source>
      <translation>{hub} 上没有这个模型，或它是私有的</translation>
    </message>
    <message>
      <source>Check its name; for a private one, {login}.</source>
      <translation>请检查名称；若是私有模型，请{login}。</translation>
    </message>
    <message>
      <source>is gated: its owner asks for consent first</source>
      <translation>访问受限：其所有者要求先同意条款</translation>
    </message>
    <message>
      <source>Accept the terms on {page}, then {login}.</source>
      <translation>请在 {page} 上接受条款，然后{login}。</translation>
    </message>
    <message>
      <source>{hub} answers with no list of files</source>
      <translation>{hub} 返回的不是文件列表</translation>
    </message>
    <message>
      <source>is gated, and your account has no access yet</source>
      <translation>访问受限，而你的账户尚无权限</translation>
    </message>
    <message>
      <source>Ask for it on {page}.</source>
      <translation>请在 {page} 上申请。</translation>
    </message>
    <message>
      <source>has no revision {revision!r}</source>
      <translation>没有修订版本 {revision!r}</translation>
    </message>
    <message>
      <source>Check what follows the @.</source>
      <translation>请检查 @ 之后的内容。</translation>
    </message>
    <message>
      <source>Check HF_ENDPOINT, which names the hub's address.</source>
      <translation>请检查 HF_ENDPOINT，它指定 Hub 的地址。</translation>
    </message>
    <message>
      <source>the hub does not accept your token (401)</source>
      <translation>Hub 不接受你的令牌（401）</translation>
    </message>
    <message>
      <source>Renew it: {login}.</source>
      <translation>请更新令牌：{login}。</translation>
    </message>
    <message>
      <source>the hub refuses access (403): {reason}</source>
      <translation>Hub 拒绝访问（403）：{reason}</translation>
    </message>
    <message>
      <source>the hub refuses access (403)</source>
      <translation>Hub 拒绝访问（403）</translation>
    </message>
    <message>
      <source>Check what your token is allowed to read.</source>
      <translation>请检查你的令牌可读取的内容。</translation>
    </message>
    <message>
      <source>the hub answers with status {status}</source>
      <translation>Hub 返回状态 {status}</translation>
    </message>
    <message>
      <source>cannot be written: {reason}</source>
      <translation>无法写入：{reason}</translation>
    </message>
    <message>
      <source>Name a folder that can be written to with KVSCOPE_CACHE</source>
      <translation>请用 KVSCOPE_CACHE 指定可写的文件夹</translation>
    </message>
    <message>
      <source>{problem} ({attempts})</source>
      <translation>{problem}（{attempts}）</translation>
    </message>
    <message>
      <source>Try again in {seconds:,.0f} seconds.</source>
      <translation>请在 {seconds:,.0f} 秒后重试。</translation>
    </message>
    <message>
      <source>{count:,} attempts</source>
      <translation>已尝试 {count:,} 次</translation>
    </message>
    <message>
      <source>Use a signed address, or one with user and password (https://USER:PASSWORD@host/...).</source>
      <translation>请使用已签名的地址，或带用户名和密码的地址（https://USER:PASSWORD@host/...）。</translation>
    </message>
    <message>
      <source>Check that the address may be read and that its signature has not expired.</source>
      <translation>请确认该地址可读，且其签名未过期。</translation>
    </message>
    <message>
      <source>answers with status {status}</source>
      <translation>返回状态 {status}</translation>
    </message>
    <message>
      <source>asks for a login (401)</source>
      <translation>要求登录（401）</translation>
    </message>
    <message>
      <source>refuses access (403)</source>
      <translation>拒绝访问（403）</translation>
    </message>
    <message>
      <source>Give the tensor a shorter name.</source>
      <translation>请给该张量起一个更短的名称。</translation>
    </message>
    <message>
      <source>Write the file again with the safetensors library, or download it again.</source>
      <translation>请用 safetensors 库重新写出该文件，或重新下载。</translation>
    </message>
    <message>
      <source>has a name of {length:,} characters; names of up to {most:,} are read</source>
      <translation>的名称有 {length:,} 个字符；只读取不超过 {most:,} 个字符的名称</translation>
    </message>
    <message>
      <source>its header is not JSON: {name} is no number</source>
      <translation>其头部不是 JSON：{name} 不是数字</translation>
    </message>
    <message>
      <source>its header does not begin with '{{'</source>
      <translation>其头部不以 '{{' 开头</translation>
    </message>
    <message>
      <source>its header holds the number {digits}, which no size or offset can be</source>
      <translation>其头部含数字 {digits}，不可能是大小或偏移</translation>
    </message>
    <message>
      <source>its __metadata__ is no JSON object</source>
      <translation>其 __metadata__ 不是 JSON 对象</translation>
    </message>
    <message>
      <source>is described by no JSON object</source>
      <translation>其描述不是 JSON 对象</translation>
    </message>
    <message>
      <source>has a dtype that is no type name</source>
      <translation>dtype 不是类型名</translation>
    </message>
    <message>
      <source>has a shape that is no list of sizes</source>
      <translation>shape 不是大小的列表</translation>
    </message>
    <message>
      <source>has data_offsets that are no pair of offsets</source>
      <translation>data_offsets 不是一对偏移</translation>
    </message>
    <message>
      <source>ends at data offset {end:,}, before it begins at {begin:,}</source>
      <translation>结束于数据偏移 {end:,}，早于其起始 {begin:,}</translation>
    </message>
    <message>
      <source>of shape {shape} and type {dtype} takes {needed}, but its offsets span {span:,}</source>
      <translation>形状为 {shape}、类型为 {dtype}，需 {needed}，而其偏移跨度为 {span:,}</translation>
    </message>
    <message>
      <source>has a name that is not valid text</source>
      <translation>名称不是有效文本</translation>
    </message>
    <message>
      <source>its header is not UTF-8</source>
      <translation>其头部不是 UTF-8</translation>
    </message>
    <message>
      <source>its header is not JSON: {message}</source>
      <translation>其头部不是 JSON：{message}</translation>
    </message>
    <message>
      <source>its header is nested too deeply</source>
      <translation>其头部嵌套过深</translation>
    </message>
    <message>
      <source>its __metadata__ entry {key} is no string</source>
      <translation>其 __metadata__ 中的 {key} 不是字符串</translation>
    </message>
    <message>
      <source>its __metadata__ entry {key} is not valid text</source>
      <translation>其 __metadata__ 中的 {key} 不是有效文本</translation>
    </message>
    <message>
      <source>has no {field}</source>
      <translation>没有 {field}</translation>
    </message>
    <message>
      <source>of shape {shape} and type {dtype} has no whole number of bytes below 2**63</source>
      <translation>形状为 {shape}、类型为 {dtype}，其字节数不是小于 2**63 的整数</translation>
    </message>
    <message>
      <source>its header names {key} twice</source>
      <translation>其头部重复列出 {key}</translation>
    </message>
    <message>
      <source>Calibrate the KV cache for FP8: this engine takes no integer KV scheme.</source>
      <translation>请按 FP8 校准 KV 缓存：此引擎不接受整数 KV 方案。</translation>
    </message>
    <message>
      <source>Serve this model with an engine that knows its architecture: no export helps here.</source>
      <translation>请用认识其架构的引擎来服务此模型：导出在此无济于事。</translation>
    </message>
    <message>
      <source>Convert the checkpoint again: every layer of a quantized cache needs a factor, which is one number.</source>
      <translation>请重新转换检查点：量化缓存的每一层都需要一个因子，且只是一个数。</translation>
    </message>
    <message>
      <source>Leave these tensors out on export: this engine has no place for them.</source>
      <translation>导出时略去这些张量：此引擎没有容纳它们的位置。</translation>
    </message>
    <message>
      <source>Export with names that this engine takes.</source>
      <translation>请以此引擎接受的名称导出。</translation>
    </message>
    <message>
      <source>Divide them by 448 (FP8) and give them the names of scales on export.</source>
      <translation>导出时将它们除以 448（FP8），并改用缩放因子的名称。</translation>
    </message>
    <message>
      <source>Multiply by 6 on export: these are global scales of an NVFP4 cache, amax / 2688.</source>
      <translation>导出时乘以 6：这些是 NVFP4 缓存的全局缩放因子，即 amax / 2688。</translation>
    </message>
    <message>
      <source>{way}; the parameter is {parameter}</source>
      <translation>{way}；参数是 {parameter}</translation>
    </message>
    <message>
      <source> -&gt; </source>
      <translation> -&gt; </translation>
    </message>
    <message>
      <source>Export again with quantized weights: this engine takes no ModelOpt config for the KV cache alone.</source>
      <translation>请连同量化的权重重新导出：此引擎不接受只针对 KV 缓存的 ModelOpt 配置。</translation>
    </message>
    <message>
      <source>Calibrate again with a symmetric scheme.</source>
      <translation>请用对称方案重新校准。</translation>
    </message>
    <message>
      <source>Give the model's num_attention_heads and num_key_value_heads in config.json.</source>
      <translation>请在 config.json 中给出模型的 num_attention_heads 和 num_key_value_heads。</translation>
    </message>
    <message>
      <source>Name the model's class under architectures in config.json.</source>
      <translation>请在 config.json 的 architectures 中写明模型的类。</translation>
    </message>
    <message>
      <source>Choose --kv-cache-dtype fp8 (e4m3).</source>
      <translation>请选择 --kv-cache-dtype fp8（e4m3）。</translation>
    </message>
    <message>
      <source>Open the Hugging Face checkpoint from which this one was made.</source>
      <translation>请打开生成此检查点的 Hugging Face 检查点。</translation>
    </message>
    <message>
      <source>Export again in a format that this engine reads (AutoRound: llm_compressor).</source>
      <translation>请以此引擎能读取的格式重新导出（AutoRound：llm_compressor）。</translation>
    </message>
    <message>
      <source>Declare the KV cache as compressed-tensors does on export: this engine takes that without weights.</source>
      <translation>导出时按 compressed-tensors 的方式声明 KV 缓存：此引擎无需权重即可接受。</translation>
    </message>
    <message>
      <source>Make FP8 scales of them on export (times 127 / 448), or calibrate the KV cache for FP8.</source>
      <translation>导出时将它们换算为 FP8 缩放因子（乘以 127 / 448），或按 FP8 校准 KV 缓存。</translation>
    </message>
    <message>
      <source>Leave the zero points out on export, all of which are zero: the scheme then is symmetric.</source>
      <translation>导出时略去全部为零的零点：这样方案就是对称的。</translation>
    </message>
    <message>
      <source>Mend this field, which the engine reads and does not check: {where}.</source>
      <translation>请修正该字段，引擎会读取它但不作检查：{where}。</translation>
    </message>
    <message>
      <source>Leave this tensor out on export: it is no KV scale, and this engine has no place for it.</source>
      <translation>导出时略去此张量：它不是 KV 缩放因子，此引擎也没有容纳它的位置。</translation>
    </message>
    <message>
      <source>Leave these tensors out on export: with {method} no layer takes them.</source>
      <translation>导出时略去这些张量：没有层接收它们（{method}）。</translation>
    </message>
    <message>
      <source>{engine} with {method} creates no {scales}</source>
      <translation>{engine}（{method}）不创建 {scales}</translation>
    </message>
    <message>
      <source>; </source>
      <translation>；</translation>
    </message>
    <message>
      <source>No name reaches {cls} layers in {engine}: its rules rename even the parameter's own. Keep the cache unquantized (--kv-cache-dtype bfloat16), or choose an engine that has names for them.</source>
      <translation>在 {engine} 中没有名称能到达 {cls} 层：其规则连参数自身的名称也会改掉。请保持缓存不量化（--kv-cache-dtype bfloat16），或选择有对应名称的引擎。</translation>
    </message>
    <message>
      <source>Calibrate the KV cache itself: these belong to the up-projection of multi-head latent attention, not to what its cache stores, and an export gives them no other name.</source>
      <translation>请校准 KV 缓存本身：这些缩放因子属于多头潜在注意力的上投影，而不属于其缓存所存储的内容，导出不会为其更名。</translation>
    </message>
    <message>
      <source>{kind} rule {pattern}</source>
      <translation>{kind} 规则 {pattern}</translation>
    </message>
    <message>
      <source>Export again with a scheme that this engine takes, or choose another engine.</source>
      <translation>请以此引擎接受的方案重新导出，或选择其他引擎。</translation>
    </message>
    <message>
      <source>Leave out on export what quantizers left behind: this engine has no place for it.</source>
      <translation>导出时略去量化器的遗留物：此引擎没有容纳它们的位置。</translation>
    </message>
    <message>
      <source>Leave these tensors out on export: this engine has no layer for them.</source>
      <translation>导出时略去这些张量：此引擎没有对应的层。</translation>
    </message>
    <message>
      <source>Declare the quantization of the KV cache in config.json; no name helps without it.</source>
      <translation>请在 config.json 中声明 KV 缓存的量化；否则任何名称都无济于事。</translation>
    </message>
    <message>
      <source>Leave these tensors out on export: no layer of {engine} has such a parameter.</source>
      <translation>导出时略去这些张量：{engine} 的层都没有这样的参数。</translation>
    </message>
    <message>
      <source>KV-cache scales</source>
      <translation>KV 缓存缩放因子</translation>
    </message>
    <message>
      <source>{lacking} on {classes} layers</source>
      <translation>{lacking}（{classes} 层）</translation>
    </message>
    <message>
      <source>No name helps here: choose an engine or a quantization method that has these scales.</source>
      <translation>任何名称都无济于事：请选择有这些缩放因子的引擎或量化方法。</translation>
    </message>
    <message>
      <source>{rule} of {loader}</source>
      <translation>{loader} 的 {rule}</translation>
    </message>
    <message>
      <source>{name} ({rule})</source>
      <translation>{name}（{rule}）</translation>
    </message>
    <message>
      <source>no rule matches, the nearest is {rule}</source>
      <translation>没有规则匹配，最接近的是 {rule}</translation>
    </message>
    <message>
      <source>dropped</source>
      <translation>丢弃</translation>
    </message>
    <message>
      <source>The engine refuses the model</source>
      <translation>引擎拒绝该模型</translation>
    </message>
    <message>
      <source>What the checkpoint declares is not supported, so no tensor is read.</source>
      <translation>检查点的声明不受支持，因此不读取任何张量。</translation>
    </message>
    <message>
      <source>The engine stops while loading</source>
      <translation>引擎在加载时停止</translation>
    </message>
    <message>
      <source>A tensor's name, after all renaming, leads to something that cannot take it.</source>
      <translation>张量名经所有改名后指向无法接收它的对象。</translation>
    </message>
    <message>
      <source>The scale has a shape that its parameter does not take</source>
      <translation>缩放因子的形状不被其参数接受</translation>
    </message>
    <message>
      <source>More than one value where the engine takes one scale for a layer, or a shape of another layout.</source>
      <translation>引擎每层只接收一个缩放因子，而这里有多个值，或形状属于另一种布局。</translation>
    </message>
    <message>
      <source>The number of per-head scales is not the number of KV heads</source>
      <translation>逐头缩放因子的个数与 KV 头数不符</translation>
    </message>
    <message>
      <source>Per-head scales need one value for each key/value head.</source>
      <translation>逐头缩放因子需要为每个 KV 头提供一个值。</translation>
    </message>
    <message>
      <source>A layer fails after loading</source>
      <translation>某层在加载后失败</translation>
    </message>
    <message>
      <source>The engine post-processes each layer's scales and raises there.</source>
      <translation>引擎在后处理各层的缩放因子时抛出异常。</translation>
    </message>
    <message>
      <source>No attention layer receives these scales</source>
      <translation>没有注意力层收到这些缩放因子</translation>
    </message>
    <message>
      <source>After renaming, the scale's name belongs to no parameter, and the engine skips it without a word.</source>
      <translation>改名后，缩放因子的名称不对应任何参数，引擎悄然跳过它。</translation>
    </message>
    <message>
      <source>No attention layer receives these q or prob scales</source>
      <translation>没有注意力层收到这些 q 或 prob 缩放因子</translation>
    </message>
    <message>
      <source>The checkpoint quantizes attention itself; the engine runs queries or probabilities at 1.0.</source>
      <translation>检查点量化了注意力本身；引擎却以 1.0 处理查询或概率。</translation>
    </message>
    <message>
      <source>Several tensors with different values reach one parameter</source>
      <translation>多个值不同的张量到达同一参数</translation>
    </message>
    <message>
      <source>The last one read wins, silently.</source>
      <translation>最后读取的一个悄然生效。</translation>
    </message>
    <message>
      <source>Layers have a v scale but no k scale</source>
      <translation>有些层只有 v 缩放因子而没有 k</translation>
    </message>
    <message>
      <source>vLLM's scalar methods and SGLang assert that k is there; compressed-tensors runs k at 1.0.</source>
      <translation>vLLM 的标量方法和 SGLang 断言 k 存在；compressed-tensors 让 k 以 1.0 运行。</translation>
    </message>
    <message>
      <source>Layers have a k scale but no v scale</source>
      <translation>有些层只有 k 缩放因子而没有 v</translation>
    </message>
    <message>
      <source>vLLM's scalar methods and SGLang copy k to v; compressed-tensors runs v at 1.0.</source>
      <translation>vLLM 的标量方法和 SGLang 将 k 复制给 v；compressed-tensors 让 v 以 1.0 运行。</translation>
    </message>
    <message>
      <source>One scale is stored for k and v, and only k receives it</source>
      <translation>k 与 v 共存一个缩放因子，而只有 k 收到它</translation>
    </message>
    <message>
      <source>kv_scale is read as k's; scalar methods copy it to v, compressed-tensors leaves v at 1.0.</source>
      <translation>kv_scale 被当作 k 的读取；标量方法将其复制给 v，compressed-tensors 让 v 保持 1.0。</translation>
    </message>
    <message>
      <source>Some attention layers have no scale</source>
      <translation>部分注意力层没有缩放因子</translation>
    </message>
    <message>
      <source>Layers were ignored or dropped by the tool, or the calibration has a hole.</source>
      <translation>工具忽略或丢弃了某些层，或校准有缺口。</translation>
    </message>
    <message>
      <source>The scales go unused: the KV cache is not quantized</source>
      <translation>缩放因子未被使用：KV 缓存未量化</translation>
    </message>
    <message>
      <source>The KV cache stays in a plain float type, so k and v run at 1.0 whatever was loaded.</source>
      <translation>KV 缓存保持为普通浮点类型，因此无论加载了什么，k 和 v 都以 1.0 运行。</translation>
    </message>
    <message>
      <source>The scales go unused: this cache computes its own</source>
      <translation>缩放因子未被使用：此缓存自行计算</translation>
    </message>
    <message>
      <source>Per-token-head cache types compute scales while the engine runs.</source>
      <translation>逐 token 逐头的缓存类型在引擎运行时计算缩放因子。</translation>
    </message>
    <message>
      <source>There are no q scales</source>
      <translation>没有 q 缩放因子</translation>
    </message>
    <message>
      <source>Queries run at 1.0, which is usual; vLLM's log says k_scale, but 1.0 is what is set.</source>
      <translation>查询以 1.0 运行，这很常见；vLLM 的日志说的是 k_scale，但实际设置的是 1.0。</translation>
    </message>
    <message>
      <source>q or prob scales are applied although the KV cache is not quantized</source>
      <translation>KV 缓存未量化，却应用了 q 或 prob 缩放因子</translation>
    </message>
    <message>
      <source>vLLM applies them whatever the type of the cache.</source>
      <translation>无论缓存是什么类型，vLLM 都会应用它们。</translation>
    </message>
    <message>
      <source>Scales on modules without a KV cache of their own</source>
      <translation>缩放因子位于没有自身 KV 缓存的模块上</translation>
    </message>
    <message>
      <source>Encoders, towers, linear attention and layers that share another layer's cache need none.</source>
      <translation>编码器、塔、线性注意力以及共享其他层缓存的层都不需要缩放因子。</translation>
    </message>
    <message>
      <source>Scales on draft (MTP) layers</source>
      <translation>缩放因子位于草稿(MTP)层上</translation>
    </message>
    <message>
      <source>The main model does not load them; a speculative-decoding run may.</source>
      <translation>主模型不加载它们；投机解码运行时可能会加载。</translation>
    </message>
    <message>
      <source>Zero points or biases, all zero</source>
      <translation>零点或偏置，全为零</translation>
    </message>
    <message>
      <source>Engines do not use them; being zero, they change nothing.</source>
      <translation>引擎不使用它们；由于为零，它们不改变任何结果。</translation>
    </message>
    <message>
      <source>Zero points or biases that the engine does not apply</source>
      <translation>引擎不会应用的零点或偏置</translation>
    </message>
    <message>
      <source>The cache was calibrated asymmetrically; without the offset the scales do not fit.</source>
      <translation>缓存经过非对称校准；没有偏移，缩放因子就不匹配。</translation>
    </message>
    <message>
      <source>Uninitialised memory in place of scales</source>
      <translation>缩放因子处是未初始化的内存</translation>
    </message>
    <message>
      <source>The tool registered the parameter and never wrote a calibrated value into it.</source>
      <translation>工具注册了参数，却从未写入校准值。</translation>
    </message>
    <message>
      <source>NaN or infinite scales</source>
      <translation>缩放因子为 NaN 或无穷大</translation>
    </message>
    <message>
      <source>Calibration saw NaN or overflowed.</source>
      <translation>校准时遇到 NaN 或发生溢出。</translation>
    </message>
    <message>
      <source>Negative scales</source>
      <translation>缩放因子为负</translation>
    </message>
    <message>
      <source>A scale is a positive factor; -1.0 is the value of a parameter that never received one.</source>
      <translation>缩放因子是正数；-1.0 是从未收到缩放因子的参数的值。</translation>
    </message>
    <message>
      <source>Scales of exactly zero</source>
      <translation>缩放因子恰为零</translation>
    </message>
    <message>
      <source>The observer saw only zeros or never fired.</source>
      <translation>观察器只看到零，或从未触发。</translation>
    </message>
    <message>
      <source>An amax is stored instead of a scale</source>
      <translation>存储的是 amax 而不是缩放因子</translation>
    </message>
    <message>
      <source>The largest magnitude itself, not divided by the largest quantized number (448 for FP8).</source>
      <translation>最大幅值本身，未除以最大量化数（FP8 为 448）。</translation>
    </message>
    <message>
      <source>The reciprocal of the scale is stored</source>
      <translation>存储的是缩放因子的倒数</translation>
    </message>
    <message>
      <source>The factor to quantize by, where engines take the factor to dequantize by.</source>
      <translation>存储的是量化用的因子，而引擎接收的是反量化用的因子。</translation>
    </message>
    <message>
      <source>Scales of exactly 1.0</source>
      <translation>缩放因子恰为 1.0</translation>
    </message>
    <message>
      <source>A clamp (ModelOpt before 0.43, TensorRT-LLM export), a cast recipe, or no calibration at all.</source>
      <translation>截断（0.43 之前的 ModelOpt、TensorRT-LLM 导出）、cast 配方，或根本没有校准。</translation>
    </message>
    <message>
      <source>Scales far above the other layers'</source>
      <translation>缩放因子远大于其他层</translation>
    </message>
    <message>
      <source>A calibration sample with an outlier, or another unit in this layer.</source>
      <translation>校准样本含离群值，或此层使用了另一种单位。</translation>
    </message>
    <message>
      <source>Scales of exactly the type's machine epsilon</source>
      <translation>缩放因子恰为该类型的机器精度</translation>
    </message>
    <message>
      <source>An observer that saw only zeros stores epsilon; 0.0078125 in bfloat16 looks like a scale.</source>
      <translation>只看到零的观察器会存储机器精度；bfloat16 的 0.0078125 看起来像缩放因子。</translation>
    </message>
    <message>
      <source>Scales smaller than any real calibration gave</source>
      <translation>缩放因子小于任何真实校准的结果</translation>
    </message>
    <message>
      <source>Activations of nearly zero, or another unit; real values are clipped.</source>
      <translation>激活值近乎为零，或使用了另一种单位；真实的值会被截断。</translation>
    </message>
    <message>
      <source>Scales above 1.0</source>
      <translation>缩放因子大于 1.0</translation>
    </message>
    <message>
      <source>An amax above 448, or another convention.</source>
      <translation>amax 大于 448，或采用了另一种约定。</translation>
    </message>
    <message>
      <source>Scales above 0.5</source>
      <translation>缩放因子大于 0.5</translation>
    </message>
    <message>
      <source>An amax above 224: rare in real models, or another convention.</source>
      <translation>amax 大于 224：在真实模型中罕见，或采用了另一种约定。</translation>
    </message>
    <message>
      <source>k and v look swapped</source>
      <translation>k 与 v 似乎互换了</translation>
    </message>
    <message>
      <source>Keys are larger than values in nearly every layer of real models; here it is the other way round.</source>
      <translation>真实模型几乎每一层的 K 都大于 V；这里正好相反。</translation>
    </message>
    <message>
      <source>k and v of a layer are far apart from the other layers' ratio</source>
      <translation>某层 k 与 v 之比远离其他层</translation>
    </message>
    <message>
      <source>One of the two was calibrated on something else, or belongs to another layer.</source>
      <translation>两者之一是在别的数据上校准的，或属于另一层。</translation>
    </message>
    <message>
      <source>Scales stored in a type that is too coarse for them</source>
      <translation>缩放因子的存储类型过于粗糙</translation>
    </message>
    <message>
      <source>Integers and 8-bit floats hold a scale to a few percent at best.</source>
      <translation>整数和 8 位浮点数最多只能以百分之几的精度保存缩放因子。</translation>
    </message>
    <message>
      <source>Scales are rounded to the engine's type</source>
      <translation>缩放因子被舍入为引擎的类型</translation>
    </message>
    <message>
      <source>Up to 0.4 % in bfloat16: harmless.</source>
      <translation>bfloat16 下最多 0.4 %：无害。</translation>
    </message>
    <message>
      <source>k and v are equal in every layer</source>
      <translation>每层的 k 与 v 都相等</translation>
    </message>
    <message>
      <source>One scale for both: Quark's kv_cache_group, or a single kv_scale.</source>
      <translation>两者共用一个缩放因子：Quark 的 kv_cache_group，或单一的 kv_scale。</translation>
    </message>
    <message>
      <source>A quantized KV cache is declared, but no scale is stored</source>
      <translation>声明了量化的 KV 缓存，却没有存储缩放因子</translation>
    </message>
    <message>
      <source>A cast recipe, a failed export, or scales in another file.</source>
      <translation>cast 配方、导出失败，或缩放因子在另一个文件中。</translation>
    </message>
    <message>
      <source>The declared KV scheme is dynamic</source>
      <translation>声明的 KV 方案是动态的</translation>
    </message>
    <message>
      <source>Scales were to be computed at run time; engines without that run at 1.0.</source>
      <translation>缩放因子本应在运行时计算；不支持的引擎以 1.0 运行。</translation>
    </message>
    <message>
      <source>Scales are stored, but no quantized KV cache is declared</source>
      <translation>存储了缩放因子，却没有声明量化的 KV 缓存</translation>
    </message>
    <message>
      <source>Nothing tells the engine to quantize the cache, so it stays in the model dtype and they go unused.</source>
      <translation>没有任何信息要求引擎量化缓存，因此缓存保持模型数据类型，缩放因子未被使用。</translation>
    </message>
    <message>
      <source>The checkpoint's declaration is contradictory or incomplete</source>
      <translation>检查点的声明自相矛盾或不完整</translation>
    </message>
    <message>
      <source>Config files disagree, cannot be read, or say something that the engine reads otherwise.</source>
      <translation>配置文件互相矛盾、无法读取，或其内容被引擎作另一种解读。</translation>
    </message>
    <message>
      <source>Another quantization method was chosen than the checkpoint declares</source>
      <translation>所选量化方法与检查点的声明不同</translation>
    </message>
    <message>
      <source>The prediction is for the method chosen.</source>
      <translation>预测针对所选的方法。</translation>
    </message>
    <message>
      <source>Files cannot be read</source>
      <translation>文件无法读取</translation>
    </message>
    <message>
      <source>Truncated, corrupt, or not what their names say.</source>
      <translation>被截断、已损坏，或与其名称不符。</translation>
    </message>
    <message>
      <source>Shards that the index names are missing</source>
      <translation>索引列出的分片缺失</translation>
    </message>
    <message>
      <source>The download is incomplete.</source>
      <translation>下载不完整。</translation>
    </message>
    <message>
      <source>Values of scales cannot be read</source>
      <translation>缩放因子的值无法读取</translation>
    </message>
    <message>
      <source>The tensor is there, its numbers are not.</source>
      <translation>张量存在，但其数值不存在。</translation>
    </message>
    <message>
      <source>The index and the shards disagree</source>
      <translation>索引与分片不一致</translation>
    </message>
    <message>
      <source>Engines choose files by the index; a tensor elsewhere may not be read.</source>
      <translation>引擎按索引选择文件；位于别处的张量可能不会被读取。</translation>
    </message>
    <message>
      <source>A key stands in several shards</source>
      <translation>一个键出现在多个分片中</translation>
    </message>
    <message>
      <source>The engine reads both; the last one wins.</source>
      <translation>引擎两个都读取；最后一个生效。</translation>
    </message>
    <message>
      <source>k and v of a layer stand in different shards</source>
      <translation>同一层的 k 与 v 位于不同分片</translation>
    </message>
    <message>
      <source>Tools write them side by side; shards may come from different exports.</source>
      <translation>工具会将它们写在一起；分片可能来自不同的导出。</translation>
    </message>
    <message>
      <source>A file with KV scales is not named by the index</source>
      <translation>含 KV 缩放因子的文件未被索引列出</translation>
    </message>
    <message>
      <source>Engines skip files that the index does not name.</source>
      <translation>引擎跳过索引未列出的文件。</translation>
    </message>
    <message>
      <source>the engine's default</source>
      <translation>引擎的默认值</translation>
    </message>
    <message>
      <source>copied from the other role</source>
      <translation>复制自另一角色</translation>
    </message>
    <message>
      <source>set by the engine</source>
      <translation>由引擎设定</translation>
    </message>
    <message>
      <source>it asserts that k is above 0</source>
      <translation>它断言 k 大于 0</translation>
    </message>
    <message>
      <source>the model does not start</source>
      <translation>模型无法启动</translation>
    </message>
    <message>
      <source>No attention layer of {engine} takes {_them}.</source>
      <translation>{engine} 没有注意力层接收它们。</translation>
    </message>
    <message>
      <source>No parameter of {engine} takes {_them}: nothing changes.</source>
      <translation>{engine} 没有参数接收它们：不改变任何结果。</translation>
    </message>
    <message>
      <source>{engine} stops after loading with {error} in {layers}: {why}.</source>
      <translation>{engine} 在加载后停止，{layers} 抛出 {error}：{why}。</translation>
    </message>
    <message>
      <source>{engine} has no attention layer that needs scales.</source>
      <translation>{engine} 没有需要缩放因子的注意力层。</translation>
    </message>
    <message>
      <source>{engine} keeps no value for {roles}.</source>
      <translation>{engine} 不为 {roles} 保存值。</translation>
    </message>
    <message>
      <source>{layers} {_end} with {values}</source>
      <translation>{layers} 最终得到 {values}</translation>
    </message>
    <message>
      <source>{part:,} of {count:,} attention layers</source>
      <translation>共 {count:,} 个注意力层中的 {part:,} 个</translation>
    </message>
    <message>
      <source>all {count:,} attention layers</source>
      <translation>全部 {count:,} 个注意力层</translation>
    </message>
    <message>
      <source>both attention layers</source>
      <translation>两个注意力层</translation>
    </message>
    <message>
      <source>the only attention layer</source>
      <translation>唯一的注意力层</translation>
    </message>
    <message>
      <source>{count:,} attention layers</source>
      <translation>{count:,} 个注意力层</translation>
    </message>
    <message>
      <source>{role} = {values}</source>
      <translation>{role} = {values}</translation>
    </message>
    <message>
      <source>{engine} refuses the model before it reads them.</source>
      <translation>{engine} 在读取它们之前就拒绝了模型。</translation>
    </message>
    <message>
      <source>{engine} stops while loading, at {key}, before these values matter.</source>
      <translation>{engine} 在加载 {key} 时停止，这些值尚未起作用。</translation>
    </message>
    <message>
      <source>{engine} stops while loading before these values matter.</source>
      <translation>{engine} 在加载时停止，这些值尚未起作用。</translation>
    </message>
    <message>
      <source>What {engine} does with them is not known.</source>
      <translation>{engine} 如何处理它们尚不清楚。</translation>
    </message>
    <message>
      <source>{values} in {layers}</source>
      <translation>{layers} 为 {values}</translation>
    </message>
    <message>
      <source>{values} ({source})</source>
      <translation>{values}（{source}）</translation>
    </message>
    <message>
      <source> and </source>
      <translation> 和 </translation>
    </message>
    <message>
      <source>{role}: {part} of {all}, {values}</source>
      <translation>{role}：{all} 个中有 {part} 个，{values}</translation>
    </message>
    <message>
      <source>{count:,} layers</source>
      <translation>{count:,} 层</translation>
    </message>
    <message>
      <source>Nothing to mend; they can be left out on export.</source>
      <translation>无需修复；导出时可以略去它们。</translation>
    </message>
    <message>
      <source>{file} declares {scheme}; {engine} keeps the cache in {dtype} for --kv-cache-dtype {asked}</source>
      <translation>{file} 声明 {scheme}；而在 --kv-cache-dtype {asked} 下，{engine} 将缓存保持为 {dtype}</translation>
    </message>
    <message>
      <source>{layers} {_have} no k and no v scale: {path}</source>
      <translation>{layers} 既无 k 也无 v 缩放因子：{path}</translation>
    </message>
    <message>
      <source>Method {method} declares no KV-cache scheme</source>
      <translation>方法 {method} 未声明 KV 缓存方案</translation>
    </message>
    <message>
      <source>No quantization is declared where the engine looks</source>
      <translation>引擎查看之处没有声明量化</translation>
    </message>
    <message>
      <source>{scales} on {modules}</source>
      <translation>{modules} 上有 {scales}</translation>
    </message>
    <message>
      <source>{lacking}; the ignore list names {layers}</source>
      <translation>{lacking}；忽略列表列出了 {layers}</translation>
    </message>
    <message>
      <source>{scales}; {count} of them {_are} uninitialised</source>
      <translation>{scales}；其中 {count} 个未初始化</translation>
    </message>
    <message>
      <source>Start the engine with {option}.</source>
      <translation>请以 {option} 启动引擎。</translation>
    </message>
    <message>
      <source>{declared}; {scales} {_are} stored.</source>
      <translation>{declared}；却存储了 {scales}。</translation>
    </message>
    <message>
      <source>Start the engine with {option}, or write the scheme into config.json on export.</source>
      <translation>请以 {option} 启动引擎，或在导出时将方案写入 config.json。</translation>
    </message>
    <message>
      <source>{count:,} scales</source>
      <translation>{count:,} 个缩放因子</translation>
    </message>
    <message>
      <source>{layers} {_have} a v scale and no k scale.</source>
      <translation>{layers} 有 v 缩放因子而没有 k 缩放因子。</translation>
    </message>
    <message>
      <source>Calibrate k as well, or leave these v scales out on export.</source>
      <translation>请同时校准 k，或在导出时略去这些 v 缩放因子。</translation>
    </message>
    <message>
      <source>{layers} {_have} a k scale and no v scale.</source>
      <translation>{layers} 有 k 缩放因子而没有 v 缩放因子。</translation>
    </message>
    <message>
      <source>Calibrate v as well, or write it on export.</source>
      <translation>请同时校准 v，或在导出时写入 v。</translation>
    </message>
    <message>
      <source>{scales} for k and v together, and none for v alone.</source>
      <translation>{scales} 由 k 和 v 共用，没有单独用于 v 的。</translation>
    </message>
    <message>
      <source>Write the scale for v as well on export.</source>
      <translation>导出时也为 v 写入该缩放因子。</translation>
    </message>
    <message>
      <source>Calibrate these layers too, or set their scales on export.</source>
      <translation>请一并校准这些层，或在导出时设置其缩放因子。</translation>
    </message>
    <message>
      <source>{engine} does not pass --kv-cache-dtype on to {layers}: the cache stays in {dtype} there.</source>
      <translation>{engine} 不将 --kv-cache-dtype 传给 {layers}：那里的缓存保持为 {dtype}。</translation>
    </message>
    <message>
      <source>Nothing in the checkpoint can change this: {engine} has no quantized cache for these layers.</source>
      <translation>检查点中的任何内容都无法改变这一点：{engine} 没有用于这些层的量化缓存。</translation>
    </message>
    <message>
      <source>The KV cache is {dtype}.</source>
      <translation>KV 缓存为 {dtype}。</translation>
    </message>
    <message>
      <source>{engine} computes a scale for each token and head; those stored are not used.</source>
      <translation>{engine} 为每个 token 和头计算缩放因子；不使用存储的缩放因子。</translation>
    </message>
    <message>
      <source>Start the engine with {option} to use the stored scales.</source>
      <translation>请以 {option} 启动引擎，以使用存储的缩放因子。</translation>
    </message>
    <message>
      <source>Nothing to mend unless queries are meant to be quantized too.</source>
      <translation>除非查询也要量化，否则无需修复。</translation>
    </message>
    <message>
      <source>The KV cache stays in {dtype}.</source>
      <translation>KV 缓存保持为 {dtype}。</translation>
    </message>
    <message>
      <source>{engine} has no KV cache there: they change nothing.</source>
      <translation>{engine} 在那里没有 KV 缓存：它们不改变任何结果。</translation>
    </message>
    <message>
      <source>{scales} behind the model's {count} layers: {values}.</source>
      <translation>在模型的 {count} 层之后有 {scales}：{values}。</translation>
    </message>
    <message>
      <source>{tensors}, all zero.</source>
      <translation>{tensors}，全为零。</translation>
    </message>
    <message>
      <source>{engine} does not use them.</source>
      <translation>{engine} 不使用它们。</translation>
    </message>
    <message>
      <source>{tensors} with {values}.</source>
      <translation>{tensors}，值为 {values}。</translation>
    </message>
    <message>
      <source>{engine} quantizes around zero: what was calibrated asymmetrically is clipped.</source>
      <translation>{engine} 以零为中心量化：非对称校准的部分会被截断。</translation>
    </message>
    <message>
      <source>{kept} and method {method}</source>
      <translation>{kept}（方法 {method}）</translation>
    </message>
    <message>
      <source>{count:,} k and v scales</source>
      <translation>{count:,} 个 k 和 v 缩放因子</translation>
    </message>
    <message>
      <source>{layers} {_have} a q scale.</source>
      <translation>{layers} 有 q 缩放因子。</translation>
    </message>
    <message>
      <source>No attention layer has a q scale.</source>
      <translation>没有注意力层有 q 缩放因子。</translation>
    </message>
    <message>
      <source>Leave these scales out on export.</source>
      <translation>导出时略去这些缩放因子。</translation>
    </message>
    <message>
      <source>Start the engine with {option}, or leave these scales out on export.</source>
      <translation>请以 {option} 启动引擎，或在导出时略去这些缩放因子。</translation>
    </message>
    <message>
      <source>{engine} does not read them into the main model.</source>
      <translation>{engine} 不将它们读入主模型。</translation>
    </message>
    <message>
      <source>{count:,} tensors</source>
      <translation>{count:,} 个张量</translation>
    </message>
    <message>
      <source>{file}: {field} says {scheme}.</source>
      <translation>{file}：{field} 声明 {scheme}。</translation>
    </message>
    <message>
      <source>{field} {count:,}</source>
      <translation>{field} {count:,}</translation>
    </message>
    <message>
      <source>Calibrate the KV cache and export again, or set scales on export.</source>
      <translation>请校准 KV 缓存并重新导出，或在导出时设置缩放因子。</translation>
    </message>
    <message>
      <source>Calibrate the KV cache with a static scheme and export again, or set scales on export.</source>
      <translation>请以静态方案校准 KV 缓存并重新导出，或在导出时设置缩放因子。</translation>
    </message>
    <message>
      <source> </source>
      <translation> </translation>
    </message>
    <message>
      <source>{engine} goes by what it reads: {method}, KV cache in {dtype}.</source>
      <translation>{engine} 以其读到的为准：{method}，KV 缓存为 {dtype}。</translation>
    </message>
    <message>
      <source>Make the config files agree, or export again.</source>
      <translation>请使配置文件一致，或重新导出。</translation>
    </message>
    <message>
      <source>config.json says {claims}; no model has so many.</source>
      <translation>config.json 声明 {claims}；没有模型有这么多。</translation>
    </message>
    <message>
      <source>The prediction goes by what else the checkpoint says of its layers and heads.</source>
      <translation>预测改以检查点中关于层和头的其他信息为准。</translation>
    </message>
    <message>
      <source>Correct config.json, or download it again.</source>
      <translation>请修正 config.json，或重新下载。</translation>
    </message>
    <message>
      <source>{method} was chosen; the checkpoint declares {declared}.</source>
      <translation>选择了 {method}；而检查点声明 {declared}。</translation>
    </message>
    <message>
      <source>The prediction is for {method}.</source>
      <translation>预测针对 {method}。</translation>
    </message>
    <message>
      <source>Leave --method out to predict for {declared}.</source>
      <translation>去掉 --method 即可针对 {declared} 预测。</translation>
    </message>
    <message>
      <source>no quantization</source>
      <translation>不量化</translation>
    </message>
    <message>
      <source>the unquantized model</source>
      <translation>未量化的模型</translation>
    </message>
    <message>
      <source>Store one value for each layer on export: the largest, which clips nothing.</source>
      <translation>导出时每层存储一个值：取最大值，它不会截断任何值。</translation>
    </message>
    <message>
      <source>{count} KV heads</source>
      <translation>{count} 个 KV 头</translation>
    </message>
    <message>
      <source>one value for each KV head</source>
      <translation>每个 KV 头一个值</translation>
    </message>
    <message>
      <source>{engine} does not build the model; no tensor is read.</source>
      <translation>{engine} 不构建模型；不读取任何张量。</translation>
    </message>
    <message>
      <source>{engine} stops there and does not reach {scales}.</source>
      <translation>{engine} 在此停止，另有 {scales} 未到达。</translation>
    </message>
    <message>
      <source>{engine} stops there.</source>
      <translation>{engine} 在此停止。</translation>
    </message>
    <message>
      <source>{engine} stops while loading.</source>
      <translation>{engine} 在加载时停止。</translation>
    </message>
    <message>
      <source>{key} has shape {shape}; the parameter holds one value.</source>
      <translation>{key} 的形状为 {shape}；参数只保存一个值。</translation>
    </message>
    <message>
      <source>{key}: its layer has {heads}, and the model as a whole counts as having {all}.</source>
      <translation>{key}：其所在层有 {heads}，而整个模型被认为有 {all} 个。</translation>
    </message>
    <message>
      <source>{engine} stops: {error}.</source>
      <translation>{engine} 停止：{error}。</translation>
    </message>
    <message>
      <source>Store one value for each layer on export: this engine takes one for each head only where every layer has as many KV heads as the model.</source>
      <translation>导出时为每层存储一个值：只有当每一层的 KV 头数都与模型相同时，该引擎才接受每头一个值。</translation>
    </message>
    <message>
      <source>{key} holds {values}; the layer has {heads}.</source>
      <translation>{key} 含有 {values}；该层有 {heads}。</translation>
    </message>
    <message>
      <source>Calibrate again for this model's heads, or store one value for each layer.</source>
      <translation>请按此模型的头数重新校准，或每层存储一个值。</translation>
    </message>
    <message>
      <source>Make sure that these layers receive a k scale above 0.</source>
      <translation>请确保这些层收到大于 0 的 k 缩放因子。</translation>
    </message>
    <message>
      <source>Leave out the tensors that do not belong there on export.</source>
      <translation>导出时略去不属于那里的张量。</translation>
    </message>
    <message>
      <source>. </source>
      <translation>。</translation>
    </message>
    <message>
      <source>{way}: {error}</source>
      <translation>{way}：{error}</translation>
    </message>
    <message>
      <source>{key} has shape {shape}: {error}</source>
      <translation>{key} 的形状为 {shape}：{error}</translation>
    </message>
    <message>
      <source>{error} in {layers} ({path})</source>
      <translation>{layers} 抛出 {error}（{path}）</translation>
    </message>
    <message>
      <source>{parameters}; {target} gets {values}</source>
      <translation>{parameters}；{target} 收到 {values}</translation>
    </message>
    <message>
      <source>{count:,} more scales</source>
      <translation>{count:,} 个缩放因子</translation>
    </message>
    <message>
      <source>{count:,} KV heads</source>
      <translation>{count:,} 个 KV 头</translation>
    </message>
    <message>
      <source>{part:,} of {count:,} k and v scales</source>
      <translation>共 {count:,} 个 k 和 v 缩放因子中的 {part:,} 个</translation>
    </message>
    <message>
      <source>all {count:,} k and v scales</source>
      <translation>全部 {count:,} 个 k 和 v 缩放因子</translation>
    </message>
    <message>
      <source>both k and v scales</source>
      <translation>两个 k 和 v 缩放因子</translation>
    </message>
    <message>
      <source>the only k and v scale</source>
      <translation>唯一的 k 和 v 缩放因子</translation>
    </message>
    <message>
      <source>{count:,} parameters</source>
      <translation>{count:,} 个参数</translation>
    </message>
    <message>
      <source>the model dtype</source>
      <translation>模型数据类型</translation>
    </message>
    <message>
      <source>the engine</source>
      <translation>引擎</translation>
    </message>
    <message>
      <source>Download these files again.</source>
      <translation>请重新下载这些文件。</translation>
    </message>
    <message>
      <source>{engine} stops when it opens {_them}; what is inside is not known.</source>
      <translation>{engine} 打开时会停止；其中的内容未知。</translation>
    </message>
    <message>
      <source>{keys} in no shard</source>
      <translation>{keys} 不在任何分片中</translation>
    </message>
    <message>
      <source>{keys} in another shard</source>
      <translation>{keys} 在另一个分片中</translation>
    </message>
    <message>
      <source>{keys} not in the index</source>
      <translation>{keys} 不在索引中</translation>
    </message>
    <message>
      <source>{file} {problem}</source>
      <translation>{file} {problem}</translation>
    </message>
    <message>
      <source>And {count} more.</source>
      <translation>另有 {count} 个。</translation>
    </message>
    <message>
      <source>{files} {_are} not there: {keys}, {scales} among them.</source>
      <translation>{files} 不存在：涉及 {keys}，其中有 {scales}。</translation>
    </message>
    <message>
      <source>{engine} finds {tensors} too few.</source>
      <translation>{engine} 会缺少 {tensors}。</translation>
    </message>
    <message>
      <source>{file}: {keys}; {scales} among them.</source>
      <translation>{file}：{keys}；其中有 {scales}。</translation>
    </message>
    <message>
      <source>{engine} opens the files that the index names, and takes every tensor in them.</source>
      <translation>{engine} 打开索引列出的文件，并读取其中的每个张量。</translation>
    </message>
    <message>
      <source>Write the index anew on export.</source>
      <translation>导出时重写索引。</translation>
    </message>
    <message>
      <source>{keys}; {key} is in {files}.</source>
      <translation>{keys}；{key} 在 {files} 中。</translation>
    </message>
    <message>
      <source>{engine} reads each, and the last one wins.</source>
      <translation>{engine} 逐一读取，最后一个生效。</translation>
    </message>
    <message>
      <source>Keep one of them on export, or download the checkpoint again into an empty folder.</source>
      <translation>导出时只保留其中一个，或将检查点重新下载到空文件夹。</translation>
    </message>
    <message>
      <source>{pairs}: {k} is in {k_file}, {v} in {v_file}.</source>
      <translation>{pairs}：{k} 在 {k_file} 中，{v} 在 {v_file} 中。</translation>
    </message>
    <message>
      <source>{engine} reads both; only a mixed-up download would be wrong.</source>
      <translation>{engine} 两者都读取；只有混杂的下载才会出错。</translation>
    </message>
    <message>
      <source>Check that all shards come from one export.</source>
      <translation>请检查所有分片是否来自同一次导出。</translation>
    </message>
    <message>
      <source>The rest was read as far as it goes.</source>
      <translation>其余部分已尽可能读取。</translation>
    </message>
    <message>
      <source>{key}: {problem}</source>
      <translation>{key}：{problem}</translation>
    </message>
    <message>
      <source>What the layers end with is not known.</source>
      <translation>各层最终得到什么尚不清楚。</translation>
    </message>
    <message>
      <source>{file} holds {scales}, and {index} does not name it.</source>
      <translation>{file} 含有 {scales}，而 {index} 未列出它。</translation>
    </message>
    <message>
      <source>{engine} does not open this file.</source>
      <translation>{engine} 不打开此文件。</translation>
    </message>
    <message>
      <source>Write the index anew on export, so that it names the file.</source>
      <translation>导出时重写索引，使其列出该文件。</translation>
    </message>
    <message>
      <source>{count:,} KV scales</source>
      <translation>{count:,} 个 KV 缩放因子</translation>
    </message>
    <message>
      <source>{count:,} pairs</source>
      <translation>{count:,} 对</translation>
    </message>
    <message>
      <source>the tensor is empty</source>
      <translation>张量为空</translation>
    </message>
    <message>
      <source>the median of the same role in the other layers</source>
      <translation>其他层同一角色的中位数</translation>
    </message>
    <message>
      <source>the value of the layer's other role (k for v, v for k)</source>
      <translation>该层另一角色的值（v 取 k，k 取 v）</translation>
    </message>
    <message>
      <source>a number, for example 1.0</source>
      <translation>一个数，例如 1.0</translation>
    </message>
    <message>
      <source>the stored value times a number, for example x0.5 (FNUZ) or x6 (NVFP4's amax / 2688)</source>
      <translation>存储的值乘以一个数，例如 x0.5（FNUZ）或 x6（NVFP4 的 amax / 2688）</translation>
    </message>
    <message>
      <source>the values in another checkpoint, an overlay or a side file</source>
      <translation>另一检查点、覆盖层或旁文件中的值</translation>
    </message>
    <message>
      <source>leave them out</source>
      <translation>略去它们</translation>
    </message>
    <message>
      <source>names that the engine takes; every export for an engine does so by itself</source>
      <translation>引擎接受的名称；每次为引擎导出都会自动如此</translation>
    </message>
    <message>
      <source>write the index anew, as the files are</source>
      <translation>按现有文件重写索引</translation>
    </message>
    <message>
      <source>one number for each layer: the largest, which clips nothing</source>
      <translation>每层一个数：取最大值，它不会截断任何值</translation>
    </message>
    <message>
      <source>exchange k and v</source>
      <translation>交换 k 和 v</translation>
    </message>
    <message>
      <source>divide by the largest number of the cache's format (448 for FP8)</source>
      <translation>除以缓存格式的最大数（FP8 为 448）</translation>
    </message>
    <message>
      <source>divide by this number</source>
      <translation>除以此数</translation>
    </message>
    <message>
      <source>store 1 / value</source>
      <translation>存储 1 / 值</translation>
    </message>
    <message>
      <source>times 6: amax / 2688 of an NVFP4 cache becomes amax / 448 of an FP8 cache</source>
      <translation>乘以 6：NVFP4 缓存的 amax / 2688 变为 FP8 缓存的 amax / 448</translation>
    </message>
    <message>
      <source>make FP8 scales of INT8 ones: times 127 / 448, and declared so</source>
      <translation>将 INT8 缩放因子换算为 FP8：乘以 127 / 448，并如此声明</translation>
    </message>
    <message>
      <source>write what the scales need into config.json</source>
      <translation>将缩放因子所需的声明写入 config.json</translation>
    </message>
    <message>
      <source>write the other role's value</source>
      <translation>写入另一角色的值</translation>
    </message>
    <message>
      <source>write it for k and for v</source>
      <translation>为 k 和 v 都写入</translation>
    </message>
    <message>
      <source>leave out all but the last one read, which the engine uses</source>
      <translation>只保留最后读取的一个，即引擎使用的那个</translation>
    </message>
    <message>
      <source>leave out all but the last shard's, which engines use</source>
      <translation>只保留最后一个分片中的，即引擎使用的那个</translation>
    </message>
    <message>
      <source>leave the v scales out</source>
      <translation>略去 v 缩放因子</translation>
    </message>
    <message>
      <source>one number for each layer in place of one for each head: the largest</source>
      <translation>每层一个数，代替每头一个：取最大值</translation>
    </message>
    <message>
      <source>every k and v scale times this number</source>
      <translation>所有 k 和 v 缩放因子乘以此数</translation>
    </message>
    <message>
      <source>exchange k and v in every layer</source>
      <translation>在每一层交换 k 和 v</translation>
    </message>
    <message>
      <source>leave out what quantizers left behind: amaxes of weights and inputs</source>
      <translation>略去量化器遗留的内容：权重和输入的 amax</translation>
    </message>
    <message>
      <source>Calibrate again with representative samples, or set a scale on export.</source>
      <translation>请用有代表性的样本重新校准，或在导出时设置缩放因子。</translation>
    </message>
    <message>
      <source>{values} (limit {limit})</source>
      <translation>{values}（限值 {limit}）</translation>
    </message>
    <message>
      <source>At 1.0 FP8 keeps its range but not its precision for small keys and values.</source>
      <translation>在 1.0 下，FP8 保有范围，但对较小的键和值失去精度。</translation>
    </message>
    <message>
      <source>{scales} {_are} exactly 1.0.</source>
      <translation>恰为 1.0 的缩放因子：{scales}。</translation>
    </message>
    <message>
      <source>{epsilons} in {layers}: what an observer stores that saw only zeros</source>
      <translation>{layers} 为 {epsilons}：只看到零的观察器存储的正是此值</translation>
    </message>
    <message>
      <source>{scales} for k and v together</source>
      <translation>{scales} 由 k 和 v 共用</translation>
    </message>
    <message>
      <source>Written by {tool}.</source>
      <translation>由 {tool} 写入。</translation>
    </message>
    <message>
      <source>{part} of {all} {role} scales</source>
      <translation>{role} {part}/{all}</translation>
    </message>
    <message>
      <source>{role} {value} in {layers} is {ratio:.0f} times the median {median}</source>
      <translation>{layers} 的 {role} 为 {value}，是中位数 {median} 的 {ratio:.0f} 倍</translation>
    </message>
    <message>
      <source>k equals v in {layers}</source>
      <translation>k 与 v 在 {layers} 中相等</translation>
    </message>
    <message>
      <source>k and v share the larger of the two scales: the smaller one loses some precision.</source>
      <translation>k 和 v 共用两者中较大的缩放因子：较小的一方会损失一些精度。</translation>
    </message>
    <message>
      <source>Nothing to mend; a tool that calibrates k and v apart is slightly more precise.</source>
      <translation>无需修复；分别校准 k 和 v 的工具会稍精确一些。</translation>
    </message>
    <message>
      <source>Calibrate again with a tool that does not clamp (ModelOpt 0.43 or later), or set a scale on export.</source>
      <translation>请用不截断的工具（ModelOpt 0.43 或更新版本）重新校准，或在导出时设置缩放因子。</translation>
    </message>
    <message>
      <source>{part:,} of {count:,} layers</source>
      <translation>共 {count:,} 层中的 {part:,} 层</translation>
    </message>
    <message>
      <source>all {count:,} layers</source>
      <translation>全部 {count:,} 层</translation>
    </message>
    <message>
      <source>both layers</source>
      <translation>两层</translation>
    </message>
    <message>
      <source>the only layer</source>
      <translation>唯一的层</translation>
    </message>
    <message>
      <source>v is above k in {part} of {all} layers; the median of v / k is {ratio}.</source>
      <translation>{all} 层中有 {part} 层的 v 大于 k；v / k 的中位数为 {ratio}。</translation>
    </message>
    <message>
      <source>Compare with another calibration of this model; if they are swapped, exchange k and v on export.</source>
      <translation>请与此模型的另一次校准比较；若确已互换，导出时交换 k 和 v。</translation>
    </message>
    <message>
      <source>{scales}, by up to {lost:.2g} % in {dtype} ({key}).</source>
      <translation>{scales}，在 {dtype} 下最多相差 {lost:.2g} %（{key}）。</translation>
    </message>
    <message>
      <source>Nothing to mend.</source>
      <translation>无需修复。</translation>
    </message>
    <message>
      <source>k / v is {ratio} in {layers}, and {median} in the median of {count} layers</source>
      <translation>{layers} 的 k / v 为 {ratio}，而 {count} 层的中位数为 {median}</translation>
    </message>
    <message>
      <source>scales of public FP8 models: {models}</source>
      <translation>公开 FP8 模型的缩放因子：{models}</translation>
    </message>
    <message>
      <source>a larger magnitude is no scale</source>
      <translation>幅值更大的不是缩放因子</translation>
    </message>
    <message>
      <source>uninitialised memory read back: 1e7 to 4.5e34</source>
      <translation>读到的未初始化内存：1e7 到 4.5e34</translation>
    </message>
    <message>
      <source>a smaller magnitude is no scale</source>
      <translation>幅值更小的不是缩放因子</translation>
    </message>
    <message>
      <source>Quark floors scales at 1.19e-7; uninitialised memory holds 1e-16 down</source>
      <translation>Quark 的缩放因子下限为 1.19e-7；未初始化内存为 1e-16 及以下</translation>
    </message>
    <message>
      <source>smaller than any calibration gave</source>
      <translation>小于任何校准的结果</translation>
    </message>
    <message>
      <source>{public}; smallest 0.00023</source>
      <translation>{public}；最小为 0.00023</translation>
    </message>
    <message>
      <source>amax above 448, or another convention</source>
      <translation>amax 大于 448，或采用了另一种约定</translation>
    </message>
    <message>
      <source>{public}; largest 0.977</source>
      <translation>{public}；最大为 0.977</translation>
    </message>
    <message>
      <source>amax above 224, or another convention</source>
      <translation>amax 大于 224，或采用了另一种约定</translation>
    </message>
    <message>
      <source>{public}; only Qwen2-1.5B's first layer</source>
      <translation>{public}；只有 Qwen2-1.5B 的第一层</translation>
    </message>
    <message>
      <source>from this median on, an amax or a reciprocal is stored</source>
      <translation>中位数达到此值，即视为存储了 amax 或倒数</translation>
    </message>
    <message>
      <source>amaxes of K lie between 4 and 440</source>
      <translation>K 的 amax 在 4 到 440 之间</translation>
    </message>
    <message>
      <source>a layer's scale over the median of its role</source>
      <translation>一层的缩放因子与其角色中位数之比</translation>
    </message>
    <message>
      <source>{public}; largest ratio 25, Qwen2-1.5B's first layer</source>
      <translation>{public}；最大比值 25，见于 Qwen2-1.5B 的第一层</translation>
    </message>
    <message>
      <source>a layer's k / v over the median of k / v, or below it by as much</source>
      <translation>一层的 k / v 高于 k / v 中位数的倍数，或低于的倍数</translation>
    </message>
    <message>
      <source>{public}; largest about 40</source>
      <translation>{public}；最大约 40</translation>
    </message>
    <message>
      <source>share of layers with k &lt; v from which they look swapped</source>
      <translation>k &lt; v 的层所占比例达到此值，即似乎互换</translation>
    </message>
    <message>
      <source>K &gt; V in 329 of 334 layers of public models</source>
      <translation>公开模型的 334 层中有 329 层 K &gt; V</translation>
    </message>
    <message>
      <source>median of v / k from which k and v look swapped</source>
      <translation>v / k 的中位数达到此值，k 与 v 即似乎互换</translation>
    </message>
    <message>
      <source>{public}; smallest median of k / v 3.2</source>
      <translation>{public}；k / v 中位数最小为 3.2</translation>
    </message>
    <message>
      <source>layers needed to tell that k and v are swapped</source>
      <translation>判断 k 与 v 互换所需的层数</translation>
    </message>
    <message>
      <source>fewer prove nothing</source>
      <translation>更少则不能说明问题</translation>
    </message>
    <message>
      <source>probability of so many exact epsilons by chance, below which they count</source>
      <translation>恰为机器精度的值偶然出现这么多次的概率，低于此值才算数</translation>
    </message>
    <message>
      <source>bfloat16 has 256 numbers within a factor of two of its epsilon</source>
      <translation>bfloat16 在其机器精度的两倍范围内有 256 个数</translation>
    </message>
    <message>
      <source>Name one of {names}</source>
      <translation>请使用其中之一：{names}</translation>
    </message>
    <message>
      <source>{limit!r} gives the limit no number</source>
      <translation>{limit!r} 没有给界限赋数值</translation>
    </message>
    <message>
      <source>there is no limit {name!r}</source>
      <translation>没有名为 {name!r} 的界限</translation>
    </message>
    <message>
      <source>Write {name}={value}</source>
      <translation>请写成 {name}={value}</translation>
    </message>
    <message>
      <source>Calibrate these layers again, or set a scale on export.</source>
      <translation>请重新校准这些层，或在导出时设置缩放因子。</translation>
    </message>
    <message>
      <source>the name says so</source>
      <translation>名称已表明</translation>
    </message>
    <message>
      <source>Calibrate these layers again, or set a scale on export; look for NaN in the activations first.</source>
      <translation>请重新校准这些层，或在导出时设置缩放因子；先检查激活值中是否有 NaN。</translation>
    </message>
    <message>
      <source>These are an engine's empty parameters written back: leave them out on export.</source>
      <translation>这些是被写回的引擎空参数：导出时略去它们。</translation>
    </message>
    <message>
      <source>k is not below v, as in real amaxes</source>
      <translation>k 不小于 v，与真实的 amax 一致</translation>
    </message>
    <message>
      <source>v is above k, the opposite of real scales</source>
      <translation>v 大于 k，与真实的缩放因子相反</translation>
    </message>
    <message>
      <source>The ignore list names {layers}.</source>
      <translation>忽略列表列出了 {layers}。</translation>
    </message>
    <message>
      <source>{tool} registers q_scale and never calibrates it.</source>
      <translation>{tool} 注册了 q_scale，却从不校准它。</translation>
    </message>
    <message>
      <source>{scales} in {dtype}</source>
      <translation>{scales} 为 {dtype}</translation>
    </message>
    <message>
      <source>Divide by 448 (FP8) on export, or export again with the tool's own exporter.</source>
      <translation>导出时除以 448（FP8），或用工具自带的导出器重新导出。</translation>
    </message>
    <message>
      <source>Store 1 / value on export.</source>
      <translation>导出时存储 1 / 值。</translation>
    </message>
    <message>
      <source>Leave the q scales out on export: q then runs at 1.0.</source>
      <translation>导出时略去 q 缩放因子：q 随后以 1.0 运行。</translation>
    </message>
    <message>
      <source>Calibrate again with scales in float32 or the model's dtype.</source>
      <translation>请以 float32 或模型数据类型的缩放因子重新校准。</translation>
    </message>
    <message>
      <source>{part:,} of {count:,} KV scales</source>
      <translation>共 {count:,} 个 KV 缩放因子中的 {part:,} 个</translation>
    </message>
    <message>
      <source>all {count:,} KV scales</source>
      <translation>全部 {count:,} 个 KV 缩放因子</translation>
    </message>
    <message>
      <source>both KV scales</source>
      <translation>两个 KV 缩放因子</translation>
    </message>
    <message>
      <source>the only KV scale</source>
      <translation>唯一的 KV 缩放因子</translation>
    </message>
    <message>
      <source>The values of {scales} cannot be read ({key}).</source>
      <translation>{scales} 的值无法读取（{key}）。</translation>
    </message>
    <message>
      <source>There are no KV-cache scales here and none are declared; an FP8 cache would run at 1.0.</source>
      <translation>此处没有 KV 缓存缩放因子，也没有声明；FP8 缓存会以 1.0 运行。</translation>
    </message>
    <message>
      <source>{scales} {_reach} the attention layers.</source>
      <translation>{scales} 到达注意力层。</translation>
    </message>
    <message>
      <source>{scales} {_reach} the only attention layer of {engine}</source>
      <translation>{scales} 到达 {engine} 唯一的注意力层</translation>
    </message>
    <message>
      <source>{scales} {_reach} the {layers} of {engine}</source>
      <translation>{scales} 到达 {engine} 的 {layers}</translation>
    </message>
    <message>
      <source>{part:,} of {count:,} kv scales</source>
      <translation>共 {count:,} 个 kv 缩放因子中的 {part:,} 个</translation>
    </message>
    <message>
      <source>all {count:,} kv scales</source>
      <translation>全部 {count:,} 个 kv 缩放因子</translation>
    </message>
    <message>
      <source>both kv scales</source>
      <translation>两个 kv 缩放因子</translation>
    </message>
    <message>
      <source>the only kv scale</source>
      <translation>唯一的 kv 缩放因子</translation>
    </message>
    <message>
      <source>{count:,} kv scales</source>
      <translation>{count:,} 个 kv 缩放因子</translation>
    </message>
    <message>
      <source>{engine} keeps the KV cache in {dtype}, so none of the {scales} is used</source>
      <translation>{engine} 以 {dtype} 保存 KV 缓存，因此 {scales} 均未使用</translation>
    </message>
    <message>
      <source>{scales} {_load}, but {engine} keeps the KV cache in {dtype}, so none is used</source>
      <translation>{scales} 已加载，但 {engine} 将 KV 缓存保持为 {dtype}，因此一个也未使用</translation>
    </message>
    <message>
      <source>{layers} {_run} at 1.0 for {roles}</source>
      <translation>{layers} 的 {roles} 以 1.0 运行</translation>
    </message>
    <message>
      <source>{layers} {_run} at 1.0</source>
      <translation>{layers} 以 1.0 运行</translation>
    </message>
    <message>
      <source>{scales} never {_reach} an attention layer of {engine}: {at_one}</source>
      <translation>{scales}从未到达 {engine} 的注意力层：{at_one}</translation>
    </message>
    <message>
      <source>{layers} of {engine} {_run} on one scale for k and v, as v has none that can be used ({where})</source>
      <translation>在 {engine} 中，{layers} 让 k 和 v 共用一个缩放因子，因为 v 没有可用的（{where}）</translation>
    </message>
    <message>
      <source>{layers} {_run} on doubtful {roles} values ({why})</source>
      <translation>{layers} 使用可疑的 {roles} 值（{why}）</translation>
    </message>
    <message>
      <source>{share} ({layers})</source>
      <translation>{share}（{layers}）</translation>
    </message>
    <message>
      <source>{engine} stops after loading: {error} at {path}; {layers} {_fail}.</source>
      <translation>{engine} 在加载后停止：{path} 抛出 {error}；{layers} 失败。</translation>
    </message>
    <message>
      <source>{scales} in {_them}</source>
      <translation>其中的 {scales}</translation>
    </message>
    <message>
      <source>the scales in {_them}, if any,</source>
      <translation>其中可能有的缩放因子</translation>
    </message>
    <message>
      <source>{files} {_are} missing</source>
      <translation>{files} 缺失</translation>
    </message>
    <message>
      <source>{files} cannot be read</source>
      <translation>{files} 无法读取</translation>
    </message>
    <message>
      <source>{why}, so {lost} {_are} not known.</source>
      <translation>{why}，因此无从得知 {lost}。</translation>
    </message>
    <message>
      <source>No attention layer of {engine} needs scales of its own here.</source>
      <translation>此处 {engine} 没有注意力层需要自身的缩放因子。</translation>
    </message>
    <message>
      <source>{file} declares a quantized KV cache ({scheme}), but no k or v scale is stored for its layers</source>
      <translation>{file} 声明了量化的 KV 缓存（{scheme}），却没有为其各层存储 k 或 v 缩放因子</translation>
    </message>
    <message>
      <source>{arrived}, for k and v alike</source>
      <translation>{arrived}，由 k 和 v 共用</translation>
    </message>
    <message>
      <source>the other {count} {_end} nowhere</source>
      <translation>其余 {count} 个没有去处</translation>
    </message>
    <message>
      <source>{scales} {_load}, but the {dtype} cache computes its own</source>
      <translation>{scales} 已加载，但 {dtype} 缓存自行计算缩放因子</translation>
    </message>
    <message>
      <source>{at_one} in {engine}: the stored scales cannot be used there</source>
      <translation>在 {engine} 中，{at_one}：存储的缩放因子在那里无法使用</translation>
    </message>
    <message>
      <source>{at_one} in {engine}: no such scale is stored there</source>
      <translation>在 {engine} 中，{at_one}：那里没有存储此类缩放因子</translation>
    </message>
    <message>
      <source>None of the {scales} reaches an attention layer of {engine}: {at_one}</source>
      <translation>{scales}均未到达 {engine} 的注意力层：{at_one}</translation>
    </message>
    <message>
      <source>{engine} refuses this model: {error}.</source>
      <translation>{engine} 拒绝此模型：{error}。</translation>
    </message>
    <message>
      <source>{engine} stops while loading at {key}: {error}.</source>
      <translation>{engine} 在加载 {key} 时停止：{error}。</translation>
    </message>
    <message>
      <source>{arrived}, but {doubt}.</source>
      <translation>{arrived}，但 {doubt}。</translation>
    </message>
    <message>
      <source>{arrived}, but {left}.</source>
      <translation>{arrived}，但{left}。</translation>
    </message>
    <message>
      <source>{lacking}: {layers} of {engine} {_run} at 1.0</source>
      <translation>{lacking}：{engine} 的 {layers} 以 1.0 运行</translation>
    </message>
    <message>
      <source>{count:,} q or prob scales</source>
      <translation>{count:,} 个 q 或 prob 缩放因子</translation>
    </message>
    <message>
      <source> or </source>
      <translation> 或 </translation>
    </message>
    <message>
      <source>Not confirmed by execution.</source>
      <translation>未经执行确认。</translation>
    </message>
    <message>
      <source>{engine} stops while loading: {error}.</source>
      <translation>{engine} 在加载时停止：{error}。</translation>
    </message>
    <message>
      <source>What {engine} does is not known</source>
      <translation>{engine} 的行为尚不清楚</translation>
    </message>
    <message>
      <source>no engine is called {engine!r}</source>
      <translation>没有名为 {engine!r} 的引擎</translation>
    </message>
    <message>
      <source>compared with what SGLang 0.5.23 itself did on CPU: 8,370 names, 825 cases, 107 checkpoints, and 65,586 names through the load loops of 77 of its models</source>
      <translation>已与 SGLang 0.5.23 本身在 CPU 上的行为比较：8,370 个名称、825 个用例、107 个检查点，以及经过其 77 个模型加载循环的 65,586 个名称</translation>
    </message>
    <message>
      <source>Choose one of {choices}, or another version of vLLM</source>
      <translation>请选择 {choices} 之一，或 vLLM 的其他版本</translation>
    </message>
    <message>
      <source>no vLLM of this machine was probed yet</source>
      <translation>尚未探测此机器上的 vLLM</translation>
    </message>
    <message>
      <source>Run `kvscope probe --python PATH` with its Python</source>
      <translation>请用其 Python 运行 `kvscope probe --python PATH`</translation>
    </message>
    <message>
      <source>applied</source>
      <translation>已应用</translation>
    </message>
    <message>
      <source>applied as installed</source>
      <translation>按已安装的版本应用</translation>
    </message>
    <message>
      <source>not applied</source>
      <translation>不应用</translation>
    </message>
    <message>
      <source>method</source>
      <translation>方法</translation>
    </message>
    <message>
      <source>rule</source>
      <translation>规则</translation>
    </message>
    <message>
      <source>suffix</source>
      <translation>后缀</translation>
    </message>
    <message>
      <source>renaming</source>
      <translation>改名</translation>
    </message>
    <message>
      <source>architecture</source>
      <translation>架构</translation>
    </message>
    <message>
      <source>mapper</source>
      <translation>映射器</translation>
    </message>
    <message>
      <source>loader</source>
      <translation>加载器</translation>
    </message>
    <message>
      <source>added</source>
      <translation>新增</translation>
    </message>
    <message>
      <source>removed</source>
      <translation>移除</translation>
    </message>
    <message>
      <source>changed</source>
      <translation>改变</translation>
    </message>
    <message>
      <source>{kind} {change}: {detail}</source>
      <translation>{kind}{change}：{detail}</translation>
    </message>
    <message>
      <source>{count} quantization method</source>
      <translation>{count} 个量化方法</translation>
    </message>
    <message>
      <source>{count} quantization methods</source>
      <translation>{count} 个量化方法</translation>
    </message>
    <message>
      <source>{count} rule of a method</source>
      <translation>{count} 条方法规则</translation>
    </message>
    <message>
      <source>{count} rules of methods</source>
      <translation>{count} 条方法规则</translation>
    </message>
    <message>
      <source>{count} list of ignored suffixes</source>
      <translation>{count} 个被忽略后缀的列表</translation>
    </message>
    <message>
      <source>{count} lists of ignored suffixes</source>
      <translation>{count} 个被忽略后缀的列表</translation>
    </message>
    <message>
      <source>{count} renaming</source>
      <translation>{count} 处改名</translation>
    </message>
    <message>
      <source>{count} renamings</source>
      <translation>{count} 处改名</translation>
    </message>
    <message>
      <source>{count} architecture</source>
      <translation>{count} 个架构</translation>
    </message>
    <message>
      <source>{count} architectures</source>
      <translation>{count} 个架构</translation>
    </message>
    <message>
      <source>{count} rule of a model class</source>
      <translation>{count} 条模型类规则</translation>
    </message>
    <message>
      <source>{count} rules of model classes</source>
      <translation>{count} 条模型类规则</translation>
    </message>
    <message>
      <source>{count} loader of a model class</source>
      <translation>{count} 个模型类加载器</translation>
    </message>
    <message>
      <source>{count} loaders of model classes</source>
      <translation>{count} 个模型类加载器</translation>
    </message>
    <message>
      <source>{config} has get_cache_scale</source>
      <translation>{config} 有 get_cache_scale</translation>
    </message>
    <message>
      <source>{config} has no get_cache_scale</source>
      <translation>{config} 没有 get_cache_scale</translation>
    </message>
    <message>
      <source>hands its class's mapper to AutoWeightsLoader</source>
      <translation>将其类的映射器交给 AutoWeightsLoader</translation>
    </message>
    <message>
      <source>hands no mapper to AutoWeightsLoader</source>
      <translation>不向 AutoWeightsLoader 交任何映射器</translation>
    </message>
    <message>
      <source>is a loop of its own</source>
      <translation>是自己的循环</translation>
    </message>
    <message>
      <source>makes a mapper while it runs, or calls other loaders</source>
      <translation>在运行时生成映射器，或调用其他加载器</translation>
    </message>
    <message>
      <source>the rules come in another order</source>
      <translation>规则的顺序不同</translation>
    </message>
    <message>
      <source>checkpoint rule {rule}</source>
      <translation>检查点规则 {rule}</translation>
    </message>
    <message>
      <source>cache-scale rule {rule}</source>
      <translation>缓存缩放因子规则 {rule}</translation>
    </message>
    <message>
      <source>its mapper has {field}, a kind of rule that is not known here</source>
      <translation>其映射器有 {field}，这是此处未知的规则种类</translation>
    </message>
    <message>
      <source>such rules are not applied</source>
      <translation>这类规则不会应用</translation>
    </message>
    <message>
      <source>load_weights {now}, before it {before}</source>
      <translation>load_weights 现在{now}，之前{before}</translation>
    </message>
    <message>
      <source>vLLM {version} does not have {config}</source>
      <translation>vLLM {version} 没有 {config}</translation>
    </message>
    <message>
      <source>it is known from another version</source>
      <translation>从另一版本得知</translation>
    </message>
    <message>
      <source>names are mapped by its rules, the values that layers end with are unknown</source>
      <translation>名称按其规则映射，各层最终的值未知</translation>
    </message>
    <message>
      <source>names that end in {suffixes} and lead nowhere</source>
      <translation>以 {suffixes} 结尾且无处可去的名称</translation>
    </message>
    <message>
      <source>vLLM makes {theirs} of {name}, the same rules here make {ours}</source>
      <translation>vLLM 把 {name} 变为 {theirs}，同样的规则在这里得到 {ours}</translation>
    </message>
    <message>
      <source>predictions may be wrong: vLLM applies rules in another way there</source>
      <translation>预测可能有误：vLLM 在那里以另一种方式应用规则</translation>
    </message>
    <message>
      <source>vLLM {version} does not register it</source>
      <translation>vLLM {version} 未注册它</translation>
    </message>
    <message>
      <source>what becomes of its scales is unknown</source>
      <translation>其缩放因子的去向未知</translation>
    </message>
    <message>
      <source>built by a class that is known</source>
      <translation>由已知的类构建</translation>
    </message>
    <message>
      <source>its modules are not known</source>
      <translation>其模块未知</translation>
    </message>
    <message>
      <source>predictions need a new survey</source>
      <translation>预测需要重新调查</translation>
    </message>
    <message>
      <source>load_weights was rewritten</source>
      <translation>load_weights 已被重写</translation>
    </message>
    <message>
      <source>predictions follow the loader as it was</source>
      <translation>预测仍按原来的加载器进行</translation>
    </message>
    <message>
      <source>rule {rule}</source>
      <translation>规则 {rule}</translation>
    </message>
    <message>
      <source>{rule}, now -&gt; {name}</source>
      <translation>{rule}，现在 -&gt; {name}</translation>
    </message>
    <message>
      <source>{rule}, now -&gt; dropped{shard}</source>
      <translation>{rule}，现在 -&gt; 丢弃{shard}</translation>
    </message>
    <message>
      <source>vLLM {version} has no such quantization method</source>
      <translation>vLLM {version} 没有这个量化方法</translation>
    </message>
    <message>
      <source>a checkpoint that declares it is refused</source>
      <translation>声明它的检查点会被拒绝</translation>
    </message>
    <message>
      <source>it is built as {new}, in vLLM {version} as {old}</source>
      <translation>它构建为 {new}，在 vLLM {version} 中为 {old}</translation>
    </message>
    <message>
      <source>nothing</source>
      <translation>无</translation>
    </message>
    <message>
      <source>no difference from the built-in profile of vLLM {known}, which was {compared}</source>
      <translation>与 vLLM {known} 的内置配置无差异，该配置{compared}</translation>
    </message>
    <message>
      <source>vLLM {version} (installed)</source>
      <translation>vLLM {version}（已安装）</translation>
    </message>
    <message>
      <source>of the quantization method {method} only the renaming rules are known: which attention layers take scales, and what they make of them, is not</source>
      <translation>量化方法 {method} 只知道改名规则：哪些注意力层接收缩放因子、如何使用它们，都不清楚</translation>
    </message>
    <message>
      <source>the installed vLLM {version} has no quantization method {method}</source>
      <translation>已安装的 vLLM {version} 没有量化方法 {method}</translation>
    </message>
    <message>
      <source>differs from the built-in profile of vLLM {known} in {differences}</source>
      <translation>与 vLLM {known} 的内置配置有以下差异：{differences}</translation>
    </message>
    <message>
      <source>no difference from the built-in profile of vLLM {known}</source>
      <translation>与 vLLM {known} 的内置配置无差异</translation>
    </message>
    <message>
      <source>vLLM {version} was probed for its renaming rules; the modules and what they do with scales are those of vLLM {known}</source>
      <translation>已探测 vLLM {version} 的改名规则；模块及其对缩放因子的处理取自 vLLM {known}</translation>
    </message>
    <message>
      <source>the rules of {method} differ from those of vLLM {known} in {differences}; they are used as they are installed</source>
      <translation>{method} 的规则与 vLLM {known} 的有以下差异：{differences}；按已安装的版本使用</translation>
    </message>
    <message>
      <source>{classes}: load_weights was rewritten since vLLM {known}, and is followed as it was</source>
      <translation>{classes}：load_weights 自 vLLM {known} 以来已被重写，仍按原来的方式推算</translation>
    </message>
    <message>
      <source>{architecture} is built by the same class as {alias}, whose modules are known</source>
      <translation>{architecture} 与 {alias} 由同一个类构建，后者的模块已知</translation>
    </message>
    <message>
      <source>the installed vLLM could not be asked about {architecture} ({error})</source>
      <translation>无法向已安装的 vLLM 询问 {architecture}（{error}）</translation>
    </message>
    <message>
      <source>the document</source>
      <translation>文档</translation>
    </message>
    <message>
      <source>{name} is no JSON number</source>
      <translation>{name} 不是 JSON 数字</translation>
    </message>
    <message>
      <source>its schema is {written!r}, not {schema!r}</source>
      <translation>其 schema 是 {written!r}，而不是 {schema!r}</translation>
    </message>
    <message>
      <source>{where}: passes is none of {known}</source>
      <translation>{where}：passes 不是 {known} 之一</translation>
    </message>
    <message>
      <source>{where} names the class {name!r}, which is not there</source>
      <translation>{where} 写明的类 {name!r} 不存在</translation>
    </message>
    <message>
      <source>{where}: {kind!r} is no kind of rule</source>
      <translation>{where}：{kind!r} 不是规则的种类</translation>
    </message>
    <message>
      <source>{where} is no rule</source>
      <translation>{where} 不是规则</translation>
    </message>
    <message>
      <source>{where} has a shard that is no text and no number</source>
      <translation>{where} 的 shard 既不是文本也不是数字</translation>
    </message>
    <message>
      <source>{where} is no object</source>
      <translation>{where} 不是对象</translation>
    </message>
    <message>
      <source>{where} has no {field}</source>
      <translation>{where} 没有 {field}</translation>
    </message>
    <message>
      <source>{where} has the unknown field {field!r}</source>
      <translation>{where} 有未知字段 {field!r}</translation>
    </message>
    <message>
      <source>{where} has more than {most:,} entries</source>
      <translation>{where} 的条目超过 {most:,} 个</translation>
    </message>
    <message>
      <source>mappers and their rules are lists</source>
      <translation>映射器及其规则必须是列表</translation>
    </message>
    <message>
      <source>{where} is no list of texts</source>
      <translation>{where} 不是文本列表</translation>
    </message>
    <message>
      <source>{where} is no text of at most {most:,} characters</source>
      <translation>{where} 不是至多 {most:,} 个字符的文本</translation>
    </message>
    <message>
      <source>{where} is neither true nor false</source>
      <translation>{where} 既不是 true 也不是 false</translation>
    </message>
    <message>
      <source>{where} is no position in mappers</source>
      <translation>{where} 不是 mappers 中的位置</translation>
    </message>
    <message>
      <source>it is not JSON</source>
      <translation>它不是 JSON</translation>
    </message>
    <message>
      <source>{where}: {name} is no list of {count} answers</source>
      <translation>{where}：{name} 不是含 {count} 个答案的列表</translation>
    </message>
    <message>
      <source>{where} is no regular expression: {error}</source>
      <translation>{where} 不是正则表达式：{error}</translation>
    </message>
    <message>
      <source>{where!r} holds half a character</source>
      <translation>{where!r} 含有半个字符</translation>
    </message>
    <message>
      <source>the installed vLLM {installed} does not register {architecture}</source>
      <translation>已安装的 vLLM {installed} 未注册 {architecture}</translation>
    </message>
    <message>
      <source>the installed vLLM {installed} builds {architecture} as {new}, which is not known; vLLM {known} builds it as {old}</source>
      <translation>已安装的 vLLM {installed} 将 {architecture} 构建为 {new}，它是未知的；vLLM {known} 将其构建为 {old}</translation>
    </message>
    <message>
      <source>{loader} loads itself in another way in the installed vLLM {installed} than in vLLM {known}, whose way alone is known</source>
      <translation>{loader} 在已安装的 vLLM {installed} 中的加载方式与 vLLM {known} 不同，而只知道后者的方式</translation>
    </message>
    <message>
      <source>{loader} has another mapper in the installed vLLM {installed}, and only running code shows how it is used</source>
      <translation>{loader} 在已安装的 vLLM {installed} 中有另一个映射器，只有运行代码才能看出如何使用它</translation>
    </message>
    <message>
      <source>the mapper of {loader} changed in the installed vLLM {installed}, and so did its use</source>
      <translation>{loader} 的映射器及其用法在已安装的 vLLM {installed} 中都已改变</translation>
    </message>
    <message>
      <source>Run `kvscope probe --python PATH` again</source>
      <translation>请重新运行 `kvscope probe --python PATH`</translation>
    </message>
    <message>
      <source>it is too large</source>
      <translation>它太大</translation>
    </message>
    <message>
      <source>its schema is not {schema}</source>
      <translation>其 schema 不是 {schema}</translation>
    </message>
    <message>
      <source>python, date and probe are not all there</source>
      <translation>python、date 和 probe 不齐全</translation>
    </message>
    <message>
      <source>cannot be written: {error}</source>
      <translation>无法写入：{error}</translation>
    </message>
    <message>
      <source>cannot be read: {error}</source>
      <translation>无法读取：{error}</translation>
    </message>
    <message>
      <source>is no saved engine: {error}</source>
      <translation>不是已保存的引擎：{error}</translation>
    </message>
    <message>
      <source>Name a folder that can be written to with KVSCOPE_DATA</source>
      <translation>请用 KVSCOPE_DATA 指定一个可写的文件夹</translation>
    </message>
    <message>
      <source>config.json keeps its ModelOpt section nested (quantization_config.quantization), where SGLang 0.5.23 does not see the KV-cache algorithm: attention layers get no scale parameters</source>
      <translation>config.json 中的 ModelOpt 部分是嵌套的（quantization_config.quantization），SGLang 0.5.23 在那里看不到 KV 缓存算法：注意力层没有缩放因子参数</translation>
    </message>
    <message>
      <source>SGLang 0.5.23 ignores this kv_cache_scheme with a warning: only static symmetric per-tensor FP8 scales are taken</source>
      <translation>SGLang 0.5.23 会警告并忽略此 kv_cache_scheme：只接受静态、对称、逐张量的 FP8 缩放因子</translation>
    </message>
    <message>
      <source>the engine refuses to build the model: {error}</source>
      <translation>引擎拒绝构建该模型：{error}</translation>
    </message>
    <message>
      <source>float32 is served in {dtype}</source>
      <translation>float32 以 {dtype} 运行</translation>
    </message>
    <message>
      <source>no dtype is declared: {dtype}</source>
      <translation>未声明数据类型：{dtype}</translation>
    </message>
    <message>
      <source>the architecture {architecture!r} is not known for {engine}</source>
      <translation>{engine} 的架构中没有已知的 {architecture!r}</translation>
    </message>
    <message>
      <source>{engine} has a model class for {architecture}, but its load loop is not described here</source>
      <translation>{engine} 有 {architecture} 的模型类，但此处没有描述其加载循环</translation>
    </message>
    <message>
      <source>{engine} has no model class of its own for {architecture}: it would fall back to Transformers, or refuse</source>
      <translation>{engine} 没有 {architecture} 自己的模型类：它会退回到 Transformers，或者拒绝</translation>
    </message>
    <message>
      <source>the engine refuses to build the model</source>
      <translation>引擎拒绝构建该模型</translation>
    </message>
    <message>
      <source>config.json names no architecture</source>
      <translation>config.json 未写明架构</translation>
    </message>
    <message>
      <source>the checkpoint declares an FP8 KV cache</source>
      <translation>检查点声明了 FP8 的 KV 缓存</translation>
    </message>
    <message>
      <source>{engine} has no KV-cache dtype {value!r}</source>
      <translation>{engine} 没有 KV 缓存数据类型 {value!r}</translation>
    </message>
    <message>
      <source>{engine} has no quantization method {value!r}</source>
      <translation>{engine} 没有量化方法 {value!r}</translation>
    </message>
    <message>
      <source>{engine} has no model dtype {value!r}</source>
      <translation>{engine} 没有模型数据类型 {value!r}</translation>
    </message>
    <message>
      <source>how {engine} reads Mistral's own format (params.json) is not described here</source>
      <translation>此处没有描述 {engine} 如何读取 Mistral 自己的格式（params.json）</translation>
    </message>
    <message>
      <source>the checkpoint does not name its architecture</source>
      <translation>检查点未写明其架构</translation>
    </message>
    <message>
      <source>SGLang resolves auto to FP8 only for a kv_cache_quant_algo of FP8: model dtype</source>
      <translation>仅当 kv_cache_quant_algo 为 FP8 时，SGLang 才将 auto 解析为 FP8：使用模型数据类型</translation>
    </message>
    <message>
      <source>{architecture} keeps no quant_config, so that auto does not see the scheme: model dtype</source>
      <translation>{architecture} 不保留 quant_config，因此 auto 看不到该方案：使用模型数据类型</translation>
    </message>
    <message>
      <source>Run 'kvscope engines' for the list</source>
      <translation>运行 'kvscope engines' 查看列表</translation>
    </message>
    <message>
      <source>the load loop of {architecture} was read from {engine}'s source, but not compared with a run</source>
      <translation>{architecture} 的加载循环读自 {engine} 的源代码，但未与实际运行比较</translation>
    </message>
    <message>
      <source>{engine} takes no rules of an out-of-tree backend: its models rename in their own code</source>
      <translation>{engine} 不接受树外后端的规则：其模型在自己的代码中改名</translation>
    </message>
    <message>
      <source>SGLang sees no quantization</source>
      <translation>SGLang 看不到任何量化</translation>
    </message>
    <message>
      <source>SGLang calls it {dtype}</source>
      <translation>SGLang 称之为 {dtype}</translation>
    </message>
    <message>
      <source>the load has already failed at {key}</source>
      <translation>加载已在 {key} 处失败</translation>
    </message>
    <message>
      <source>{target} takes it, and replaces the value before</source>
      <translation>{target} 接收它，并替换之前的值</translation>
    </message>
    <message>
      <source>{target} takes it</source>
      <translation>{target} 接收它</translation>
    </message>
    <message>
      <source>{target} does not take a tensor of shape {shape}: {error}</source>
      <translation>{target} 不接受形状为 {shape} 的张量：{error}</translation>
    </message>
    <message>
      <source>--quantization {method} is refused by SGLang for these configs: {error}</source>
      <translation>对于这些配置，SGLang 拒绝 --quantization {method}：{error}</translation>
    </message>
    <message>
      <source>{loader} looks up {name}, which is no parameter</source>
      <translation>{loader} 查找 {name}，而它不是参数</translation>
    </message>
    <message>
      <source>{loader} has no parameter {name}: left out without a word</source>
      <translation>{loader} 没有参数 {name}：悄然略去</translation>
    </message>
    <message>
      <source>{loader} has no use for it</source>
      <translation>{loader} 用不到它</translation>
    </message>
    <message>
      <source>{loader} passes over layers behind the model's {count}</source>
      <translation>{loader} 跳过模型 {count} 层之后的层</translation>
    </message>
    <message>
      <source>{helper} looks for {name}, which is no parameter: left out with one warning</source>
      <translation>{helper} 查找 {name}，而它不是参数：给出一条警告后略去</translation>
    </message>
    <message>
      <source>{loader} asks {helper} and then leaves the tensor out</source>
      <translation>{loader} 询问 {helper}，然后略去该张量</translation>
    </message>
    <message>
      <source>{loader} leaves out expert tensors it has no parameter for</source>
      <translation>{loader} 略去没有对应参数的专家张量</translation>
    </message>
    <message>
      <source>{loader} asks {config} for cache scales, which only compressed-tensors' config can name</source>
      <translation>{loader} 向 {config} 询问缓存缩放因子，而只有 compressed-tensors 的配置能给出</translation>
    </message>
    <message>
      <source>{name} does not exist, and a scale left out must be one number</source>
      <translation>{name} 不存在，而被略去的缩放因子必须是单个数</translation>
    </message>
    <message>
      <source>{name} does not exist, and a scale left out must be 1.0</source>
      <translation>{name} 不存在，而被略去的缩放因子必须为 1.0</translation>
    </message>
    <message>
      <source>it is 1.0, and nothing of that name exists: left out</source>
      <translation>它为 1.0，且没有这个名称的参数：略去</translation>
    </message>
    <message>
      <source>{loader} has no parameter {name}: left out with a warning</source>
      <translation>{loader} 没有参数 {name}：给出警告后略去</translation>
    </message>
    <message>
      <source>{loader} finds no {name} and leaves the tensor out</source>
      <translation>{loader} 找不到 {name}，略去该张量</translation>
    </message>
    <message>
      <source>{loader} does not take a checkpoint with such names</source>
      <translation>{loader} 不接受带有这类名称的检查点</translation>
    </message>
    <message>
      <source>{loader}'s load_weights passes over such names</source>
      <translation>{loader} 的 load_weights 跳过这类名称</translation>
    </message>
    <message>
      <source>(PyTorch backend)</source>
      <translation>（PyTorch 后端）</translation>
    </message>
    <message>
      <source>TensorRT-LLM (PyTorch backend)</source>
      <translation>TensorRT-LLM（PyTorch 后端）</translation>
    </message>
    <message>
      <source>from documentation and public sources, not run: no prediction was compared with the engine</source>
      <translation>依据文档和公开源代码，未曾运行：没有将任何预测与该引擎比较</translation>
    </message>
    <message>
      <source>every layer needs a factor, and {name} is missing</source>
      <translation>每一层都需要一个因子，而 {name} 缺失</translation>
    </message>
    <message>
      <source>no cache is kept in {algorithm}: model dtype</source>
      <translation>缓存不以 {algorithm} 保存：使用模型数据类型</translation>
    </message>
    <message>
      <source>an FP8 cache runs at 1.0: TensorRT-LLM never uses a checkpoint's scales for it</source>
      <translation>FP8 缓存以 1.0 运行：TensorRT-LLM 从不为其使用检查点的缩放因子</translation>
    </message>
    <message>
      <source>only k_proj.k_scale and v_proj.v_scale of the decoder's layers are read</source>
      <translation>只读取解码器各层的 k_proj.k_scale 和 v_proj.v_scale</translation>
    </message>
    <message>
      <source>the cache is not quantized</source>
      <translation>缓存未量化</translation>
    </message>
    <message>
      <source>only kv_cache_scaling_factor is a parameter</source>
      <translation>只有 kv_cache_scaling_factor 是参数</translation>
    </message>
    <message>
      <source>no dtype is declared</source>
      <translation>未声明数据类型</translation>
    </message>
    <message>
      <source>{engine} has no description of the architecture {value!r}</source>
      <translation>{engine} 没有架构 {value!r} 的描述</translation>
    </message>
    <message>
      <source>the layout of {architecture} in {engine} is not described here</source>
      <translation>此处没有描述 {architecture} 在 {engine} 中的布局</translation>
    </message>
    <message>
      <source>no quantization config of {method} is read: model dtype</source>
      <translation>不读取 {method} 的量化配置：使用模型 dtype</translation>
    </message>
    <message>
      <source>the checkpoint declares {algorithm}</source>
      <translation>检查点声明了 {algorithm}</translation>
    </message>
    <message>
      <source>no KV-cache algorithm declared: model dtype</source>
      <translation>未声明 KV 缓存算法：使用模型数据类型</translation>
    </message>
    <message>
      <source>the cache is not quantized, and no scales are used</source>
      <translation>缓存未量化，不使用缩放因子</translation>
    </message>
    <message>
      <source>the larger of the factors for k and for v takes its place</source>
      <translation>k 与 v 的系数中较大者取代了它</translation>
    </message>
    <message>
      <source>no quantization is declared</source>
      <translation>未声明量化</translation>
    </message>
    <message>
      <source>config.json does not say how many layers the model has</source>
      <translation>config.json 未写明模型有多少层</translation>
    </message>
    <message>
      <source>the fused QKV projection takes it</source>
      <translation>融合的 QKV 投影接收它</translation>
    </message>
    <message>
      <source>fused QKV projection</source>
      <translation>融合的 QKV 投影</translation>
    </message>
    <message>
      <source>the larger of the factors for k and for v becomes the parameter</source>
      <translation>k 与 v 的系数中较大者成为该参数</translation>
    </message>
    <message>
      <source>the parameter has the same name</source>
      <translation>参数的名称相同</translation>
    </message>
    <message>
      <source>{engine} reads no quantization config of {method}: it would take the weights as they stand, without their scales</source>
      <translation>{engine} 不读取 {method} 的量化配置：它会按原样接受权重，而不带其缩放因子</translation>
    </message>
    <message>
      <source>config.json names no architecture, and its model_type does not tell which one is meant</source>
      <translation>config.json 未写明架构，其 model_type 也说明不了是哪一个</translation>
    </message>
    <message>
      <source>vLLM {version} was not run: answered as vLLM {known}, whose loading code is the nearest before it</source>
      <translation>vLLM {version} 未曾运行：按 vLLM {known} 作答，其加载代码是在此之前最接近的</translation>
    </message>
    <message>
      <source>{backend} with custom rules</source>
      <translation>{backend}（带自定义规则）</translation>
    </message>
    <message>
      <source>vLLM {version} is newer than every version that was run: answered as vLLM {known}</source>
      <translation>vLLM {version} 比所有运行过的版本都新：按 vLLM {known} 作答</translation>
    </message>
    <message>
      <source>vLLM {version} is older than every version that was run: answered as vLLM {known}</source>
      <translation>vLLM {version} 比所有运行过的版本都旧：按 vLLM {known} 作答</translation>
    </message>
    <message>
      <source>the config says float16, in which vLLM does not run {model_type}</source>
      <translation>配置写的是 float16，而 vLLM 不以它运行 {model_type}</translation>
    </message>
    <message>
      <source>vLLM {version} (as {known})</source>
      <translation>vLLM {version}（按 {known}）</translation>
    </message>
    <message>
      <source>{stands_in}; that one was {compared}</source>
      <translation>{stands_in}；该版本{compared}</translation>
    </message>
    <message>
      <source>config.json names no architecture: vLLM takes the base model of {model_type}</source>
      <translation>config.json 未写明架构：vLLM 采用 {model_type} 的基础模型</translation>
    </message>
    <message>
      <source>the module tree of {architecture} is not known for {engine}</source>
      <translation>{architecture} 在 {engine} 中的模块树未知</translation>
    </message>
    <message>
      <source>{heads} heads cannot be shared among {kv_heads} key/value heads</source>
      <translation>{heads} 个头无法在 {kv_heads} 个键/值头之间均分</translation>
    </message>
    <message>
      <source>the config says float32, which vLLM serves in bfloat16</source>
      <translation>配置写的是 float32，vLLM 以 bfloat16 运行</translation>
    </message>
    <message>
      <source>{dtype!r} is no model dtype</source>
      <translation>{dtype!r} 不是模型数据类型</translation>
    </message>
    <message>
      <source>{engine} has no cache-scale mapper that rules could be merged into</source>
      <translation>{engine} 没有可以并入规则的缓存缩放因子映射器</translation>
    </message>
    <message>
      <source>no quantization method is called {method!r} in {engine}</source>
      <translation>{engine} 中没有名为 {method!r} 的量化方法</translation>
    </message>
    <message>
      <source>Choose vllm-0.23.0 or newer</source>
      <translation>请选择 vllm-0.23.0 或更新的版本</translation>
    </message>
    <message>
      <source>{loader} asks maybe_remap_kv_scale_name, whose answer {asked!r} is no parameter: skipped with one warning</source>
      <translation>{loader} 询问 maybe_remap_kv_scale_name，其答案 {asked!r} 不是参数：给出一条警告后跳过</translation>
    </message>
    <message>
      <source>{loader} skips names it has no parameter for</source>
      <translation>{loader} 跳过没有对应参数的名称</translation>
    </message>
    <message>
      <source>{loader} takes such tensors apart for other layers</source>
      <translation>{loader} 为其他层拆开这类张量</translation>
    </message>
    <message>
      <source>compared with what vLLM {version} itself did on CPU: {cases} cases, {checkpoints} checkpoints</source>
      <translation>已与 vLLM {version} 本身在 CPU 上的行为比较：{cases} 个用例、{checkpoints} 个检查点</translation>
    </message>
    <message>
      <source>compared with what vLLM 0.33.0 itself did on CPU: 8,370 names, 863 cases, 116 checkpoints, and names given to the real models of 315 architectures</source>
      <translation>已与 vLLM 0.33.0 本身在 CPU 上的行为比较：8,370 个名称、863 个用例、116 个检查点，以及交给 315 个架构的真实模型的名称</translation>
    </message>
    <message>
      <source>vLLM {version} registers no {architecture}, and its Transformers backend runs no encoder-decoders</source>
      <translation>vLLM {version} 未注册 {architecture}，而其 Transformers 后端不运行编码器-解码器模型</translation>
    </message>
    <message>
      <source>vLLM runs {model} through its Transformers backend, which has no MXFP4</source>
      <translation>vLLM 通过其 Transformers 后端运行 {model}，而该后端没有 MXFP4</translation>
    </message>
    <message>
      <source>not confirmed by execution: vLLM {version} registers no {architecture}; its attention layers are derived from the tensors' names ({places}), as its Transformers backend nests them; a model that neither transformers nor the checkpoint's own code (auto_map) knows is refused</source>
      <translation>未经运行证实：vLLM {version} 未注册 {architecture}；其注意力层由张量名称（{places}）推出，按其 Transformers 后端的嵌套方式；若 transformers 和检查点自带的代码（auto_map）都不认识该模型，则会被拒绝</translation>
    </message>
    <message>
      <source>not confirmed by execution: the modules of {architecture} are read from vLLM {version}'s sources ({why})</source>
      <translation>未经运行证实：{architecture} 的模块读自 vLLM {version} 的源代码（{why}）</translation>
    </message>
    <message>
      <source>not confirmed by execution: the modules of {architecture} are taken to be nested in vLLM {version} as in vLLM {known}</source>
      <translation>未经运行证实：假定 {architecture} 的模块在 vLLM {version} 中的嵌套与 vLLM {known} 相同</translation>
    </message>
    <message>
      <source>nothing is called {name}, and {loader}'s loader ignores names that end so</source>
      <translation>没有名为 {name} 的参数，而 {loader} 的加载器忽略这样结尾的名称</translation>
    </message>
    <message>
      <source>{loader}'s loader skips it</source>
      <translation>{loader} 的加载器跳过它</translation>
    </message>
    <message>
      <source>{loader}'s loader drops it by the rule {rule}</source>
      <translation>{loader} 的加载器按规则 {rule} 丢弃它</translation>
    </message>
    <message>
      <source>{loader}'s loader ignores {name}</source>
      <translation>{loader} 的加载器忽略 {name}</translation>
    </message>
    <message>
      <source>{loader} skips it</source>
      <translation>{loader} 跳过它</translation>
    </message>
    <message>
      <source>{loader} leaves the draft (MTP) layers to another model</source>
      <translation>{loader} 将草稿（MTP）层留给另一个模型</translation>
    </message>
    <message>
      <source>{loader} takes the draft (MTP) layers alone</source>
      <translation>{loader} 只接收草稿（MTP）层</translation>
    </message>
    <message>
      <source>{loader} skips a bias it has no parameter for</source>
      <translation>{loader} 跳过没有对应参数的偏置</translation>
    </message>
    <message>
      <source>{path}, key {key!r}</source>
      <translation>{path}，键 {key!r}</translation>
    </message>
    <message>
      <source>key {key!r}</source>
      <translation>键 {key!r}</translation>
    </message>
    <message>
      <source>{where}: {problem}</source>
      <translation>{where}：{problem}</translation>
    </message>
    <message>
      <source>{message}. {remedy}</source>
      <translation>{message}。{remedy}</translation>
    </message>
    <message>
      <source>{what} was cancelled</source>
      <translation>{what}已取消</translation>
    </message>
    <message>
      <source>the job</source>
      <translation>任务</translation>
    </message>
    <message>
      <source>Why {engine} drops {scales}, as {key}</source>
      <translation>为什么 {engine} 丢弃 {scales}，例如 {key}</translation>
    </message>
    <message>
      <source>Why {engine} ignores {scales}, as {key}</source>
      <translation>为什么 {engine} 忽略 {scales}，例如 {key}</translation>
    </message>
    <message>
      <source>{steps}.</source>
      <translation>{steps}。</translation>
    </message>
    <message>
      <source>Nearly: {why}.</source>
      <translation>几乎匹配：{why}。</translation>
    </message>
    <message>
      <source>The load goes on: {end}</source>
      <translation>加载继续：{end}</translation>
    </message>
    <message>
      <source>Why {engine} stops at {key}</source>
      <translation>为什么 {engine} 停在 {key}</translation>
    </message>
    <message>
      <source>Why {engine} drops {key}</source>
      <translation>为什么 {engine} 丢弃 {key}</translation>
    </message>
    <message>
      <source>Why {engine} ignores {key}</source>
      <translation>为什么 {engine} 忽略 {key}</translation>
    </message>
    <message>
      <source>every k and v scale</source>
      <translation>所有 k 和 v 缩放因子</translation>
    </message>
    <message>
      <source>{count:,} of {scales}</source>
      <translation>共 {scales} 中的 {count:,} 个</translation>
    </message>
    <message>
      <source>No rule renames it.</source>
      <translation>没有规则为它改名。</translation>
    </message>
    <message>
      <source>{text} ({place})</source>
      <translation>{text}（{place}）</translation>
    </message>
    <message>
      <source>{reason}; the parameter is {parameter}.</source>
      <translation>{reason}；参数是 {parameter}。</translation>
    </message>
    <message>
      <source>{reason}; {path} ({cls}) has no scale parameters at all.</source>
      <translation>{reason}；{path}（{cls}）根本没有缩放因子参数。</translation>
    </message>
    <message>
      <source>the {kind} rule {rule} of {loader}</source>
      <translation>{loader} 的 {kind} 规则 {rule}</translation>
    </message>
    <message>
      <source>the {kind} rule {rule}</source>
      <translation>{kind} 规则 {rule}</translation>
    </message>
    <message>
      <source>then drops it by {rule}</source>
      <translation>随后按 {rule}，将其丢弃</translation>
    </message>
    <message>
      <source>{loader} drops it by {rule}</source>
      <translation>{loader} 按 {rule}，将其丢弃</translation>
    </message>
    <message>
      <source>then makes it {name} by {rule}</source>
      <translation>随后按 {rule}，将其改名为 {name}</translation>
    </message>
    <message>
      <source>{loader} makes it {name} by {rule}</source>
      <translation>{loader} 按 {rule}，将其改名为 {name}</translation>
    </message>
    <message>
      <source>That ends the load: {error}</source>
      <translation>加载就此终止：{error}</translation>
    </message>
    <message>
      <source>{rule} is {why}.</source>
      <translation>{rule}，{why}。</translation>
    </message>
    <message>
      <source>an export</source>
      <translation>导出</translation>
    </message>
    <message>
      <source>an export with {names} names</source>
      <translation>以 {names} 名称导出</translation>
    </message>
    <message>
      <source>What to do: {export} serves {layers} ({command}).</source>
      <translation>处理办法：{export} 可使 {layers} 得到缩放因子（{command}）。</translation>
    </message>
    <message>
      <source>The checkpoint as it is loads in {engines}.</source>
      <translation>检查点按现状可在 {engines} 中加载。</translation>
    </message>
    <message>
      <source>What to do: {fix}</source>
      <translation>处理办法：{fix}</translation>
    </message>
    <message>
      <source>What to do: choose another engine than {engine}.</source>
      <translation>处理办法：选择 {engine} 以外的引擎。</translation>
    </message>
    <message>
      <source>is not there, and the KV cache cannot be declared</source>
      <translation>不存在，因此无法声明 KV 缓存</translation>
    </message>
    <message>
      <source>Put the model's config.json beside its tensors</source>
      <translation>请把模型的 config.json 放在张量旁边</translation>
    </message>
    <message>
      <source>{part} is no object, and {field} cannot be written into it</source>
      <translation>{part} 不是对象，无法向其中写入 {field}</translation>
    </message>
    <message>
      <source>cannot be written anew</source>
      <translation>无法重新写出</translation>
    </message>
    <message>
      <source>Correct the file</source>
      <translation>请修正该文件</translation>
    </message>
    <message>
      <source>It changed since the checkpoint was opened; open it again</source>
      <translation>检查点打开之后它已发生变化；请重新打开</translation>
    </message>
    <message>
      <source>the file ended {missing} bytes early while it was copied</source>
      <translation>复制过程中文件提前 {missing} 字节结束</translation>
    </message>
    <message>
      <source>It changed since the checkpoint was opened; wait until nothing writes to it, open it again and repeat the export.</source>
      <translation>检查点打开之后它已发生变化；请等到无人写入它时，重新打开并再次导出。</translation>
    </message>
    <message>
      <source>Start the engine with --kv-cache-dtype fp8: under Quark's method engines go by that alone</source>
      <translation>请用 --kv-cache-dtype fp8 启动引擎：在 Quark 的方法下，引擎只看这个选项</translation>
    </message>
    <message>
      <source>Declare the quantization where the engine looks for it, in config.json's quantization_config</source>
      <translation>请在引擎查找量化声明的地方声明，即 config.json 的 quantization_config</translation>
    </message>
    <message>
      <source>{file} declares the KV cache as {scheme}.</source>
      <translation>{file} 将 KV 缓存声明为{scheme}。</translation>
    </message>
    <message>
      <source>Weights are not quantized; compressed-tensors is the method that takes a KV cache alone, in place of {method}'s config.</source>
      <translation>权重未量化；可以只声明 KV 缓存的方法是 compressed-tensors，它取代 {method} 的配置。</translation>
    </message>
    <message>
      <source>Weights are not quantized; compressed-tensors is the method that takes a KV cache alone, in place of no quantization.</source>
      <translation>权重未量化；可以只声明 KV 缓存的方法是 compressed-tensors，此前没有量化声明。</translation>
    </message>
    <message>
      <source>config.json declares the KV cache as {scheme}, with compressed-tensors.</source>
      <translation>config.json 用 compressed-tensors 将 KV 缓存声明为{scheme}。</translation>
    </message>
    <message>
      <source>The scales were converted from INT8 to FP8.</source>
      <translation>缩放因子已从 INT8 转换为 FP8。</translation>
    </message>
    <message>
      <source>FP8 with one scale for each head</source>
      <translation>每个头一个缩放因子的 FP8</translation>
    </message>
    <message>
      <source>FP8 with one scale for each layer</source>
      <translation>每层一个缩放因子的 FP8</translation>
    </message>
    <message>
      <source>The scales stored are for {scheme}, which nothing declared.</source>
      <translation>存储的缩放因子用于{scheme}，而此前没有任何声明。</translation>
    </message>
    <message>
      <source>the KV cache cannot be declared under {method}</source>
      <translation>在 {method} 下无法声明 KV 缓存</translation>
    </message>
    <message>
      <source>the KV cache cannot be declared under this configuration</source>
      <translation>在此配置下无法声明 KV 缓存</translation>
    </message>
    <message>
      <source>the KV cache is declared already ({scheme})</source>
      <translation>KV 缓存已经声明（{scheme}）</translation>
    </message>
    <message>
      <source>an INT8 cache is declared in words of which no FP8 counterpart is known</source>
      <translation>INT8 缓存的声明方式没有已知的 FP8 对应</translation>
    </message>
    <message>
      <source>Leave --fix declare out</source>
      <translation>请去掉 --fix declare</translation>
    </message>
    <message>
      <source>{engine} gives attention layers no scales under {method}, whatever is declared</source>
      <translation>在 {method} 下，无论如何声明，{engine} 都不给注意力层缩放因子</translation>
    </message>
    <message>
      <source>Calibrate the KV cache for FP8</source>
      <translation>请为 FP8 校准 KV 缓存</translation>
    </message>
    <message>
      <source>One scale for each layer is stored in place of one for each head.</source>
      <translation>现在每层存储一个缩放因子，而不是每个头一个。</translation>
    </message>
    <message>
      <source>No zero points are stored any more.</source>
      <translation>不再存储零点。</translation>
    </message>
    <message>
      <source>Scales are stored now.</source>
      <translation>现在存储了缩放因子。</translation>
    </message>
    <message>
      <source>One scale for each layer is stored in place of one for each channel.</source>
      <translation>现在每层存储一个缩放因子，而不是每个通道一个。</translation>
    </message>
    <message>
      <source>Choose another engine, or quantize the weights in another format</source>
      <translation>请选择其他引擎，或以其他格式量化权重</translation>
    </message>
    <message>
      <source>{reasons} {becomes}.</source>
      <translation>{reasons}{becomes}。</translation>
    </message>
    <message>
      <source>{engine} ignores {key}</source>
      <translation>{engine} 忽略 {key}</translation>
    </message>
    <message>
      <source>{engine} drops {key}</source>
      <translation>{engine} 丢弃 {key}</translation>
    </message>
    <message>
      <source>Left out: {engine} has no parameter for it and raises {error}.</source>
      <translation>已略去：{engine} 没有对应的参数，会抛出 {error}。</translation>
    </message>
    <message>
      <source>{engine} is not known to take {key}</source>
      <translation>尚不知 {engine} 是否接受 {key}</translation>
    </message>
    <message>
      <source>{engine} raises {error} at {key}</source>
      <translation>{engine} 在 {key} 处抛出 {error}</translation>
    </message>
    <message>
      <source>{engine} loads {key} into {parameter}</source>
      <translation>{engine} 将 {key} 加载到 {parameter}</translation>
    </message>
    <message>
      <source>Left out: {why}.</source>
      <translation>已略去：{why}。</translation>
    </message>
    <message>
      <source>{key} stands for k and v alike; {becomes}.</source>
      <translation>{key} 同时代表 k 和 v；{becomes}。</translation>
    </message>
    <message>
      <source>{was}; {becomes}.</source>
      <translation>{was}；{becomes}。</translation>
    </message>
    <message>
      <source>One number takes the shape {shape}; {becomes}.</source>
      <translation>单个数改用形状 {shape}；{becomes}。</translation>
    </message>
    <message>
      <source>Stored as {dtype} {shape}; {becomes}.</source>
      <translation>存储为 {dtype} {shape}；{becomes}。</translation>
    </message>
    <message>
      <source>{was}.</source>
      <translation>{was}。</translation>
    </message>
    <message>
      <source>cannot be read for copying: {reason}</source>
      <translation>无法读取以供复制：{reason}</translation>
    </message>
    <message>
      <source>Change its permissions, or move it away.</source>
      <translation>请更改其权限，或将其移走。</translation>
    </message>
    <message>
      <source>{file} is a link to a file that is not there, and is left out.</source>
      <translation>{file} 是指向不存在文件的链接，已略去。</translation>
    </message>
    <message>
      <source>{file} is no regular file, and is left out.</source>
      <translation>{file} 不是普通文件，已略去。</translation>
    </message>
    <message>
      <source>{file} is no part of the checkpoint, and is left out.</source>
      <translation>{file} 不属于该检查点，已略去。</translation>
    </message>
    <message>
      <source>{file} is a link to a folder above it, and is left out.</source>
      <translation>{file} 是指向其上级文件夹的链接，已略去。</translation>
    </message>
    <message>
      <source>Scales of {source}: {old} becomes {new}.</source>
      <translation>{source} 的缩放因子：{old} 变为 {new}。</translation>
    </message>
    <message>
      <source>which attention layers {engine} builds here is not known, so no scale can be added</source>
      <translation>不知道 {engine} 在此会构建哪些注意力层，因此无法添加缩放因子</translation>
    </message>
    <message>
      <source>{title}: {value}, {why}.</source>
      <translation>{title}：{value}，{why}。</translation>
    </message>
    <message>
      <source>unreadable</source>
      <translation>无法读取的值</translation>
    </message>
    <message>
      <source>Scales of {source}: {value}.</source>
      <translation>{source} 的缩放因子：{value}。</translation>
    </message>
    <message>
      <source>has no scale for {layers}</source>
      <translation>没有{layers}的缩放因子</translation>
    </message>
    <message>
      <source>{engine} gives these attention layers no parameters for scales</source>
      <translation>{engine} 不为这些注意力层提供缩放因子的参数</translation>
    </message>
    <message>
      <source>has scales for {layers}, and this model has no attention layer there</source>
      <translation>有{layers}的缩放因子，而此模型在那里没有注意力层</translation>
    </message>
    <message>
      <source>Mend first what keeps the engine from loading, or choose another engine</source>
      <translation>请先解决使引擎无法加载的问题，或选择其他引擎</translation>
    </message>
    <message>
      <source>what the checkpoint calls {layer} is not known, so no scale can be added</source>
      <translation>不知道检查点如何称呼 {layer}，因此无法添加缩放因子</translation>
    </message>
    <message>
      <source>Choose a file made for this model</source>
      <translation>请选择为此模型生成的文件</translation>
    </message>
    <message>
      <source>Add --fix declare where nothing declares the KV cache, or choose another engine</source>
      <translation>若没有声明 KV 缓存，请加上 --fix declare，或选择其他引擎</translation>
    </message>
    <message>
      <source>Give the checkpoint one layer with scales, or its weights, to tell</source>
      <translation>请给检查点补上一层的缩放因子或其权重，以便判断</translation>
    </message>
    <message>
      <source>Choose among {choices}</source>
      <translation>请从以下选择：{choices}</translation>
    </message>
    <message>
      <source>there is no finding or repair called {code!r} (did you mean {near!r}?)</source>
      <translation>没有名为 {code!r} 的发现或修复（是否指 {near!r}？）</translation>
    </message>
    <message>
      <source>there is no finding or repair called {code!r}</source>
      <translation>没有名为 {code!r} 的发现或修复</translation>
    </message>
    <message>
      <source>{value!r} is no choice for --fix {code}</source>
      <translation>{value!r} 不是 --fix {code} 的可选值</translation>
    </message>
    <message>
      <source>{fix} needs a value</source>
      <translation>{fix} 需要一个值</translation>
    </message>
    <message>
      <source>Choose {choices}</source>
      <translation>请选择 {choices}</translation>
    </message>
    <message>
      <source>an export cannot mend {code!r} here</source>
      <translation>导出在此无法修复 {code!r}</translation>
    </message>
    <message>
      <source>there is no finding {code!r} in this checkpoint</source>
      <translation>此检查点中没有发现 {code!r}</translation>
    </message>
    <message>
      <source>--fix {code} was given twice, as {first!r} and {second!r}</source>
      <translation>--fix {code} 给出了两次：{first!r} 和 {second!r}</translation>
    </message>
    <message>
      <source>Give it once</source>
      <translation>请只给出一次</translation>
    </message>
    <message>
      <source>Export to a new folder instead.</source>
      <translation>请改为导出到新文件夹。</translation>
    </message>
    <message>
      <source>Rewriting headers</source>
      <translation>重写头部</translation>
    </message>
    <message>
      <source>The checkpoint itself is changed: new headers where the old ones stand, and small files.</source>
      <translation>直接修改检查点本身：新头部写在旧头部的位置，并改写小文件。</translation>
    </message>
    <message>
      <source>No byte of a tensor is written, and the changed checkpoint is opened and judged.</source>
      <translation>不写任何张量字节；修改后的检查点会被打开并评判。</translation>
    </message>
    <message>
      <source>files</source>
      <translation>个文件</translation>
    </message>
    <message>
      <source>tensors' bytes would change or move, which in place cannot be</source>
      <translation>张量的字节会改变或移动，无法就地进行</translation>
    </message>
    <message>
      <source>the new header is {count} bytes longer than the room of the old one</source>
      <translation>新头部比旧头部的空间长 {count} 字节</translation>
    </message>
    <message>
      <source>is a link, and what it leads to may be shared with others</source>
      <translation>是链接，其指向的文件可能与他人共享</translation>
    </message>
    <message>
      <source>is shared with another folder by a hard link</source>
      <translation>通过硬链接与另一文件夹共享</translation>
    </message>
    <message>
      <source>{index} names this shard, and would go on listing the old keys</source>
      <translation>{index} 列出了此分片，而它会继续列出旧的键</translation>
    </message>
    <message>
      <source>the checkpoint could not be changed ({reason}), and the journal of how it was is gone</source>
      <translation>无法更改检查点（{reason}），而记录其原状的日志已不在</translation>
    </message>
    <message>
      <source>the checkpoint could not be changed ({reason}), and is as it was</source>
      <translation>无法修改检查点（{reason}），它保持原样</translation>
    </message>
    <message>
      <source>Look whether another program changed the folder; it may be as it was, or not.</source>
      <translation>请查看是否有其他程序更改了该文件夹；它可能与原来一样，也可能不同。</translation>
    </message>
    <message>
      <source>Check the disk and its permissions, or export to a new folder.</source>
      <translation>请检查磁盘及其权限，或导出到新文件夹。</translation>
    </message>
    <message>
      <source>the file has no weight_map</source>
      <translation>该文件没有 weight_map</translation>
    </message>
    <message>
      <source>It changed since the checkpoint was opened, or is damaged; open the checkpoint again.</source>
      <translation>检查点打开之后它已发生变化，或已损坏；请重新打开检查点。</translation>
    </message>
    <message>
      <source>what an interrupted export in place changed could not be put back: {why}</source>
      <translation>无法恢复被中断的就地导出所做的修改：{why}</translation>
    </message>
    <message>
      <source>Check the disk and its permissions, repeat kvscope export --in-place, and keep the journal until then.</source>
      <translation>请检查磁盘及其权限，再次运行 kvscope export --in-place，并在此之前保留日志。</translation>
    </message>
    <message>
      <source>an export in place did not end here</source>
      <translation>此处有一次就地导出没有结束</translation>
    </message>
    <message>
      <source>it is no journal</source>
      <translation>它不是日志</translation>
    </message>
    <message>
      <source>{file} is no file of this folder's own</source>
      <translation>{file} 不是此文件夹自己的文件</translation>
    </message>
    <message>
      <source>{file} has {found} bytes and not {size}</source>
      <translation>{file} 有 {found} 字节，而不是 {size}</translation>
    </message>
    <message>
      <source>Run kvscope export --in-place again, which puts everything back first.</source>
      <translation>请再次运行 kvscope export --in-place，它会先把一切恢复原状。</translation>
    </message>
    <message>
      <source>another export to this folder is running</source>
      <translation>另一个向此文件夹的导出正在运行</translation>
    </message>
    <message>
      <source>{file}: {reason}</source>
      <translation>{file}：{reason}</translation>
    </message>
    <message>
      <source>Wait until it has ended.</source>
      <translation>请等它结束。</translation>
    </message>
    <message>
      <source>This is a mistake of KVScope's; please report it with the plan of the export.</source>
      <translation>这是 KVScope 的错误；请连同导出计划一起报告。</translation>
    </message>
    <message>
      <source>Old names stay in their shards, where {engine} makes nothing of them: the verdict counts them as scales that end nowhere.</source>
      <translation>旧名称仍留在各自的分片中，{engine} 不会用到它们：结论把它们计为没有去处的缩放因子。</translation>
    </message>
    <message>
      <source>the written checkpoint has a fault: {fault}</source>
      <translation>写出的检查点有缺陷：{fault}</translation>
    </message>
    <message>
      <source>the written index does not agree with the shards</source>
      <translation>写出的索引与分片不一致</translation>
    </message>
    <message>
      <source>{value}, the largest of {count} values</source>
      <translation>{value}（{count} 个值中最大的）</translation>
    </message>
    <message>
      <source>{title}: {values} divided by {largest:g}.</source>
      <translation>{title}：{values} 除以 {largest:g}。</translation>
    </message>
    <message>
      <source>{title}: 1 / {values}.</source>
      <translation>{title}：1 / {values}。</translation>
    </message>
    <message>
      <source>{title}: {values} times {factor:g}.</source>
      <translation>{title}：{values} 乘以 {factor:g}。</translation>
    </message>
    <message>
      <source>{title}: the largest of {count} values, {largest}.</source>
      <translation>{title}：{count} 个值中的最大值 {largest}。</translation>
    </message>
    <message>
      <source>{title}: {value}, which {key} held.</source>
      <translation>{title}：{value}，原为 {key} 的值。</translation>
    </message>
    <message>
      <source>{title}: {old} becomes {new}, {why}.</source>
      <translation>{title}：{old} 变为 {new}，{why}。</translation>
    </message>
    <message>
      <source>from {file}</source>
      <translation>取自 {file}</translation>
    </message>
    <message>
      <source>the {role} scale of the same layer</source>
      <translation>取同层的 {role} 缩放因子</translation>
    </message>
    <message>
      <source>{fix}: {problem}</source>
      <translation>{fix}：{problem}</translation>
    </message>
    <message>
      <source>{code}: 1 / 0 is no scale</source>
      <translation>{code}：1 / 0 不是缩放因子</translation>
    </message>
    <message>
      <source>{title}: its zero points are all zero.</source>
      <translation>{title}：其零点全为零。</translation>
    </message>
    <message>
      <source>{file} has no {role} scale for layer {layer}</source>
      <translation>{file} 没有第 {layer} 层的 {role} 缩放因子</translation>
    </message>
    <message>
      <source>Choose another file or value</source>
      <translation>请选择其他文件或值</translation>
    </message>
    <message>
      <source>there is no sound {role} scale to take the median of</source>
      <translation>没有可取中位数的可靠 {role} 缩放因子</translation>
    </message>
    <message>
      <source>Give a number, or a file with scales</source>
      <translation>请给出数值或含缩放因子的文件</translation>
    </message>
    <message>
      <source>layer {layer} has no other role's scale to stand for {role}</source>
      <translation>第 {layer} 层没有可代替 {role} 的另一缩放因子</translation>
    </message>
    <message>
      <source>Choose another value</source>
      <translation>请选择其他值</translation>
    </message>
    <message>
      <source>nothing that can be read</source>
      <translation>无法读取</translation>
    </message>
    <message>
      <source>the {other} scale of layer {layer} cannot stand for {role}: it is {held}</source>
      <translation>第 {layer} 层的 {other} 缩放因子不能代替 {role}：其值为 {held}</translation>
    </message>
    <message>
      <source>the {other} scale of layer {layer} cannot stand for {role}: it is {held}, as doubtful itself</source>
      <translation>第 {layer} 层的 {other} 缩放因子不能代替 {role}：其值为 {held}，同样可疑</translation>
    </message>
    <message>
      <source>Give this layer a value of its own</source>
      <translation>请为此层单独给出一个值</translation>
    </message>
    <message>
      <source>as typed in</source>
      <translation>按所输入的值</translation>
    </message>
    <message>
      <source>times {factor:g}</source>
      <translation>乘以 {factor:g}</translation>
    </message>
    <message>
      <source>the median of the {role} scales</source>
      <translation>取 {role} 缩放因子的中位数</translation>
    </message>
    <message>
      <source>scales cannot be renamed to the convention {names!r}</source>
      <translation>缩放因子无法改名为约定 {names!r}</translation>
    </message>
    <message>
      <source>Choose one of {names}, or {as_is}.</source>
      <translation>请选择 {names} 之一，或 {as_is}。</translation>
    </message>
    <message>
      <source>the same attention layer has this scale under another name already</source>
      <translation>同一注意力层已有另一名称的此缩放因子</translation>
    </message>
    <message>
      <source>no spelling leads to the parameters of {engine}'s {cls} layers: its own renaming goes past them</source>
      <translation>没有任何名称能通向 {engine} 的 {cls} 层的参数：其自身的改名规则绕过了它们</translation>
    </message>
    <message>
      <source>it belongs to a cache declared as {scheme}, and the engine's parameters take FP8 scales</source>
      <translation>它属于声明为 {scheme} 的缓存，而引擎的参数接受 FP8 缩放因子</translation>
    </message>
    <message>
      <source>its values cannot be read: {fault}</source>
      <translation>其值无法读取：{fault}</translation>
    </message>
    <message>
      <source>it holds an amax, which is no scale until it is divided by the largest value of the cache's type</source>
      <translation>它存的是 amax，除以缓存类型的最大值后才是缩放因子</translation>
    </message>
    <message>
      <source>it holds the reciprocal of a scale</source>
      <translation>它存的是缩放因子的倒数</translation>
    </message>
    <message>
      <source>it is an offset, which no engine here takes</source>
      <translation>它是偏移量，此处没有引擎接受</translation>
    </message>
    <message>
      <source>it is the global scale of an NVFP4 cache, not the scale of an FP8 cache</source>
      <translation>它是 NVFP4 缓存的全局缩放因子，不是 FP8 缓存的缩放因子</translation>
    </message>
    <message>
      <source>it belongs to the up-projection of multi-head latent attention, not to what its cache stores</source>
      <translation>它属于多头潜在注意力的上投影，而不是其缓存所存的内容</translation>
    </message>
    <message>
      <source>nothing declares a quantization; --fix declare declares the KV cache's</source>
      <translation>没有任何量化声明；--fix declare 可声明 KV 缓存的量化</translation>
    </message>
    <message>
      <source>it holds {values}, and {engine} takes {wanted} for each layer; --fix per-head stores the largest</source>
      <translation>它含 {values}，而 {engine} 每层接受 {wanted} 个；--fix per-head 会存储最大值</translation>
    </message>
    <message>
      <source>it holds {values}, and {engine} takes {wanted} for each layer</source>
      <translation>它含 {values}，而 {engine} 每层接受 {wanted} 个</translation>
    </message>
    <message>
      <source>1 value</source>
      <translation>1 个值</translation>
    </message>
    <message>
      <source>{count} values</source>
      <translation>{count} 个值</translation>
    </message>
    <message>
      <source>no quantization method</source>
      <translation>无量化方法</translation>
    </message>
    <message>
      <source>{engine} builds no attention layer with a KV cache there</source>
      <translation>{engine} 在那里没有构建带 KV 缓存的注意力层</translation>
    </message>
    <message>
      <source>{engine} ends the load at any tensor on the way to its {cls} layers, whatever its name</source>
      <translation>{engine} 在通往其 {cls} 层的任何张量处都会终止加载，无论其名称如何</translation>
    </message>
    <message>
      <source>{engine} gives {cls} layers no {parameter} under {method}</source>
      <translation>{engine} 不为 {cls} 层提供 {parameter}（{method}）</translation>
    </message>
    <message>
      <source>{engine} gives {cls} layers no parameters for scales under {method}</source>
      <translation>{engine} 不为 {cls} 层提供缩放因子的参数（{method}）</translation>
    </message>
    <message>
      <source>{names} has no name for the scale of {role}</source>
      <translation>{names} 没有 {role} 缩放因子的名称</translation>
    </message>
    <message>
      <source>{problem}; export for the engine instead of a convention</source>
      <translation>{problem}；请为引擎导出，而不是按约定导出</translation>
    </message>
    <message>
      <source>{engine} stops at these names</source>
      <translation>{engine} 会在这些名称处停止</translation>
    </message>
    <message>
      <source>{engine} passes over these names</source>
      <translation>{engine} 会略过这些名称</translation>
    </message>
    <message>
      <source>{engine} misreads these names</source>
      <translation>{engine} 会误读这些名称</translation>
    </message>
    <message>
      <source>it would be written as {name}, and so would {other}, with another value</source>
      <translation>它将写为 {name}，而值不同的 {other} 也将写为同一名称</translation>
    </message>
    <message>
      <source>Remove one of the two from the checkpoint.</source>
      <translation>请从检查点中删除两者之一。</translation>
    </message>
    <message>
      <source>Export without --overlay.</source>
      <translation>请不用 --overlay 导出。</translation>
    </message>
    <message>
      <source>Download it first, and export that folder without --overlay.</source>
      <translation>请先下载它，再不带 --overlay 导出该文件夹。</translation>
    </message>
    <message>
      <source>{engine} was not seen to honour an overlay</source>
      <translation>尚未见过 {engine} 采用覆盖层</translation>
    </message>
    <message>
      <source>more than scales would change, and an overlay is for scales</source>
      <translation>要改变的不只是缩放因子，而覆盖层只用于缩放因子</translation>
    </message>
    <message>
      <source>{engine} raises {error}, and an overlay leaves the key in its shard</source>
      <translation>{engine} 抛出 {error}，而覆盖层会把该键留在其分片中</translation>
    </message>
    <message>
      <source>{engine} loads it into {parameter}, and an overlay leaves the key in its shard</source>
      <translation>{engine} 将它加载到 {parameter}，而覆盖层会把该键留在其分片中</translation>
    </message>
    <message>
      <source>what {engine} makes of it is not known, and an overlay leaves the key in its shard</source>
      <translation>尚不清楚 {engine} 会如何处理它，而覆盖层会把该键留在其分片中</translation>
    </message>
    <message>
      <source>{engine} would not end with the planned scales, as the old names stay beside the new</source>
      <translation>{engine} 最终得到的不会是计划的缩放因子，因为旧名称仍与新名称并存</translation>
    </message>
    <message>
      <source>{engine} does not end with the planned scales</source>
      <translation>{engine} 最终得到的不是计划的缩放因子</translation>
    </message>
    <message>
      <source>the tensor changes and keeps its name, and an overlay leaves the old one in its shard</source>
      <translation>该张量改变而名称不变，但覆盖层会把旧张量留在其分片中</translation>
    </message>
    <message>
      <source>Source and target share blocks, as the file system can: unchanged bytes cost no room, and neither side can change the other.</source>
      <translation>文件系统支持共享数据块，因此源与目标共享数据块：未改变的字节不占空间，且任何一方都不会影响另一方。</translation>
    </message>
    <message>
      <source>Only what an overlay adds or changes: put it beside the shards where they are, or upload it there.</source>
      <translation>只写出叠加层新增或更改的文件：请将其放到分片所在处，或上传到那里。</translation>
    </message>
    <message>
      <source>No shard is fetched, so none is compared.</source>
      <translation>未下载任何分片，因此不作比较。</translation>
    </message>
    <message>
      <source>Every byte is copied: the file system cannot share blocks between source and target.</source>
      <translation>复制每个字节：文件系统无法在源与目标之间共享数据块。</translation>
    </message>
    <message>
      <source>Samples of every shard are compared with the source: {size:.0f} GiB are more than the {most} GiB that are compared in full unless --verify all asks for it.</source>
      <translation>每个分片抽样与源比较：{size:.0f} GiB 超过全量比较的上限 {most} GiB，除非用 --verify all 要求全量比较。</translation>
    </message>
    <message>
      <source>Every byte is copied, as asked.</source>
      <translation>按要求复制每个字节。</translation>
    </message>
    <message>
      <source>Shards that do not change are hard links, as asked: they are one file in both folders, and what changes one in place changes the other.</source>
      <translation>按要求，不变的分片是硬链接：它们在两个文件夹中是同一个文件，就地修改一方也会改变另一方。</translation>
    </message>
    <message>
      <source>Shards that do not change are hard links, as an overlay leaves them alone: they are one file in both folders, and what changes one in place changes the other.</source>
      <translation>覆盖层不动分片，因此不变的分片是硬链接：它们在两个文件夹中是同一个文件，就地修改一方也会改变另一方。</translation>
    </message>
    <message>
      <source>this file system cannot share blocks with the source</source>
      <translation>此文件系统无法与源共享数据块</translation>
    </message>
    <message>
      <source>Every byte that comes from the source is compared with it, as asked.</source>
      <translation>按要求，来自源的每个字节都与源比较。</translation>
    </message>
    <message>
      <source>Samples of every shard are compared with the source, as asked.</source>
      <translation>按要求，每个分片抽样与源比较。</translation>
    </message>
    <message>
      <source>Nothing is compared with the source, as asked.</source>
      <translation>按要求，不与源比较。</translation>
    </message>
    <message>
      <source>Every byte that comes from the source is compared with it.</source>
      <translation>来自源的每个字节都与源比较。</translation>
    </message>
    <message>
      <source>Use --copy or --link, or choose a folder on the source's own XFS or btrfs file system.</source>
      <translation>请使用 --copy 或 --link，或选择源所在的 XFS 或 btrfs 文件系统上的文件夹。</translation>
    </message>
    <message>
      <source>lies on another file system than the target, and hard links cannot cross</source>
      <translation>与目标不在同一文件系统，而硬链接不能跨文件系统</translation>
    </message>
    <message>
      <source>Leave --link away or use --copy, or choose a folder on the source's file system.</source>
      <translation>请去掉 --link 或使用 --copy，或选择源所在文件系统上的文件夹。</translation>
    </message>
    <message>
      <source>Not all of them are zero, and without them the scales do not fit.</source>
      <translation>它们并不全为零，没有它们，缩放因子就不准确。</translation>
    </message>
    <message>
      <source>The convention {names!r} has no name for zero points: {count} keep the names that they have ({key}). {what}</source>
      <translation>约定 {names!r} 没有零点的名称：{count} 个零点保留原有名称（{key}）。{what}</translation>
    </message>
    <message>
      <source>tensors in PyTorch's pickled files are not renamed yet</source>
      <translation>尚不支持对 PyTorch pickle 文件中的张量改名</translation>
    </message>
    <message>
      <source>No tensor has to change; the export is a copy.</source>
      <translation>没有张量需要改变；导出即为副本。</translation>
    </message>
    <message>
      <source>The scales were calibrated together with the offsets left out: large values may be clipped.</source>
      <translation>缩放因子是与被略去的偏移量一起校准的：较大的值可能被截断。</translation>
    </message>
    <message>
      <source>With the KV-cache dtype {dtype!r} {engine} does not quantize its cache and runs at 1.0; start it with --kv-cache-dtype fp8 to use the scales. No config file has to change for that.</source>
      <translation>KV 缓存数据类型为 {dtype!r} 时，{engine} 不量化缓存，以 1.0 运行；要使用缩放因子，请用 --kv-cache-dtype fp8 启动。为此无需修改任何配置文件。</translation>
    </message>
    <message>
      <source>They are all zero; --fix zero-points leaves them out.</source>
      <translation>它们全为零；--fix zero-points 可将其略去。</translation>
    </message>
    <message>
      <source>They are all zero.</source>
      <translation>它们全为零。</translation>
    </message>
    <message>
      <source>{engine} passes these scales over as they are; under names that it takes, it stops at {layer}: mend their values as well, or keep the names (--names as-is).</source>
      <translation>{engine} 会略过这些缩放因子的现有名称；改用它接受的名称后，它会在 {layer} 处停止：请同时修复其值，或保留名称（--names as-is）。</translation>
    </message>
    <message>
      <source>{count} tensors that quantizers left behind ({key}) are no part of the model: {engine} may stop at them. --fix leftovers leaves them out.</source>
      <translation>量化器遗留的 {count} 个张量（{key}）不属于模型：{engine} 可能在此停止。--fix leftovers 可略去它们。</translation>
    </message>
    <message>
      <source>The scales are those of {scheme}, amax / {largest:g}; an FP8 cache wants amax / 448: --fix factor={factor:.4g} makes them so.</source>
      <translation>这些缩放因子属于 {scheme}，即 amax / {largest:g}；FP8 缓存需要 amax / 448：--fix factor={factor:.4g} 可完成换算。</translation>
    </message>
    <message>
      <source>Convert the checkpoint to safetensors first, for example with transformers' save_pretrained.</source>
      <translation>请先将检查点转换为 safetensors，例如用 transformers 的 save_pretrained。</translation>
    </message>
    <message>
      <source>{problem}, and a copy would be incomplete</source>
      <translation>{problem}，副本将不完整</translation>
    </message>
    <message>
      <source>the file changed since the checkpoint was opened</source>
      <translation>检查点打开之后该文件已发生变化</translation>
    </message>
    <message>
      <source>{engine} refuses this checkpoint, so that no name could be tried: {reason}.</source>
      <translation>{engine} 拒绝此检查点，因此无法尝试任何名称：{reason}。</translation>
    </message>
    <message>
      <source>{engine} cannot be predicted here, so that no name could be tried: {reason}.</source>
      <translation>此处无法预测 {engine}，因此无法尝试任何名称：{reason}。</translation>
    </message>
    <message>
      <source>{engine} raises {error} whatever the names.</source>
      <translation>无论名称如何，{engine} 都会引发 {error}。</translation>
    </message>
    <message>
      <source>Names follow the convention {names!r}.</source>
      <translation>名称遵循约定 {names!r}。</translation>
    </message>
    <message>
      <source>{names} stores one number for each layer; {count} scales keep more. --fix per-head stores the largest instead.</source>
      <translation>{names} 每层存储一个数；有 {count} 个缩放因子含多个数。--fix per-head 会改存最大值。</translation>
    </message>
    <message>
      <source>Wait until nothing writes to it, open the checkpoint again and repeat the export.</source>
      <translation>请等到无人写入它时，重新打开检查点并再次导出。</translation>
    </message>
    <message>
      <source>{engine} raises {error} at {key}.</source>
      <translation>{engine} 在 {key} 处抛出 {error}。</translation>
    </message>
    <message>
      <source>{engine} raises {error} at {key} whatever its name.</source>
      <translation>无论名称如何，{engine} 都会在 {key} 处抛出 {error}。</translation>
    </message>
    <message>
      <source>is not on this machine, and a copy of it would download all of its {size}</source>
      <translation>不在本机上，复制它需要下载全部 {size}</translation>
    </message>
    <message>
      <source>the disk has {free} free and the export needs {needed}</source>
      <translation>磁盘可用空间为 {free}，而导出需要 {needed}</translation>
    </message>
    <message>
      <source>is the source itself</source>
      <translation>就是源本身</translation>
    </message>
    <message>
      <source>lies inside the source</source>
      <translation>位于源之内</translation>
    </message>
    <message>
      <source>contains the source</source>
      <translation>包含源</translation>
    </message>
    <message>
      <source>Download it first and export that folder; --dry-run says what would change without a download, and --overlay writes only what goes beside its shards.</source>
      <translation>请先下载，再导出该文件夹；--dry-run 无需下载即可说明将改变什么，--overlay 只写出放在分片旁边的文件。</translation>
    </message>
    <message>
      <source>is a link to nothing</source>
      <translation>是指向不存在目标的链接</translation>
    </message>
    <message>
      <source>is a file</source>
      <translation>是文件</translation>
    </message>
    <message>
      <source>is not empty</source>
      <translation>不为空</translation>
    </message>
    <message>
      <source>is the top of a file system, which cannot be replaced</source>
      <translation>是文件系统的根，无法替换</translation>
    </message>
    <message>
      <source>cannot be looked at: {reason}</source>
      <translation>无法查看：{reason}</translation>
    </message>
    <message>
      <source>Free some space, or export to another disk.</source>
      <translation>请释放一些空间，或导出到其他磁盘。</translation>
    </message>
    <message>
      <source>Choose a new folder: the source stays as it is.</source>
      <translation>请选择新文件夹：源保持原样。</translation>
    </message>
    <message>
      <source>Choose a folder outside the source.</source>
      <translation>请选择源之外的文件夹。</translation>
    </message>
    <message>
      <source>Choose a folder that does not contain the source.</source>
      <translation>请选择不包含源的文件夹。</translation>
    </message>
    <message>
      <source>Choose another folder.</source>
      <translation>请选择其他文件夹。</translation>
    </message>
    <message>
      <source>Choose a folder that does not exist yet.</source>
      <translation>请选择尚不存在的文件夹。</translation>
    </message>
    <message>
      <source>Choose a folder that does not exist yet, or empty it.</source>
      <translation>请选择尚不存在的文件夹，或将其清空。</translation>
    </message>
    <message>
      <source>Create this folder first, or choose another.</source>
      <translation>请先创建此文件夹，或选择其他文件夹。</translation>
    </message>
    <message>
      <source>Choose a folder below it.</source>
      <translation>请选择其下的文件夹。</translation>
    </message>
    <message>
      <source>Choose a folder that you may write to.</source>
      <translation>请选择有写入权限的文件夹。</translation>
    </message>
    <message>
      <source>Check the disk and its permissions.</source>
      <translation>请检查磁盘及其权限。</translation>
    </message>
    <message>
      <source>holds the remainder of another export</source>
      <translation>含另一次导出的残留</translation>
    </message>
    <message>
      <source>is in the way, and no export left it there</source>
      <translation>挡住了导出，且不是导出留下的</translation>
    </message>
    <message>
      <source>Leave --resume away to remove it and write anew, or repeat the options that it was begun with.</source>
      <translation>请去掉 --resume 以删除残留并重新写出，或使用开始时的相同选项。</translation>
    </message>
    <message>
      <source>Move it, or choose another folder.</source>
      <translation>请将其移走，或选择其他文件夹。</translation>
    </message>
    <message>
      <source>Nothing was left to do: another repair had mended it.</source>
      <translation>无事可做：另一项修复已将其解决。</translation>
    </message>
    <message>
      <source>{title}: {choice}.</source>
      <translation>{title}：{choice}。</translation>
    </message>
    <message>
      <source>{source} has one scale for each head, and so they are declared and stored; by its documentation, vLLM serves such a cache with FlashAttention alone. --fix per-head stores the largest of each layer instead.</source>
      <translation>{source} 为每个头提供一个缩放因子，因此按每个头声明和存储；据 vLLM 的文档，只有 FlashAttention 能运行这样的缓存。--fix per-head 则改为只存储每层中最大的一个。</translation>
    </message>
    <message>
      <source>{title}: it is written anew, as the files are.</source>
      <translation>{title}：按文件的实际情况重新写出。</translation>
    </message>
    <message>
      <source>One scale for each layer was wished for</source>
      <translation>要求每层一个缩放因子</translation>
    </message>
    <message>
      <source>Another unit was wished for</source>
      <translation>要求换用其他单位</translation>
    </message>
    <message>
      <source>k and v were said to be swapped</source>
      <translation>指出 k 与 v 已互换</translation>
    </message>
    <message>
      <source>A declaration was wished for</source>
      <translation>要求添加声明</translation>
    </message>
    <message>
      <source>What quantizers left behind</source>
      <translation>量化器的遗留物</translation>
    </message>
    <message>
      <source>{title}: an FP8 cache has no zero points, and this one is zero.</source>
      <translation>{title}：FP8 缓存没有零点，而此零点为零。</translation>
    </message>
    <message>
      <source>{title}: left out.</source>
      <translation>{title}：已略去。</translation>
    </message>
    <message>
      <source>{title}: written for k and for v.</source>
      <translation>{title}：为 k 和 v 分别写出。</translation>
    </message>
    <message>
      <source>Scales of {source} ({title}).</source>
      <translation>{source} 的缩放因子（{title}）。</translation>
    </message>
    <message>
      <source>Every export for an engine does so by itself.</source>
      <translation>每次为引擎导出都会自动如此。</translation>
    </message>
    <message>
      <source>{title}: it is entered there.</source>
      <translation>{title}：已登记其中。</translation>
    </message>
    <message>
      <source>{title}: the last one read stays, which the engine uses.</source>
      <translation>{title}：保留最后读取的一个，引擎使用的就是它。</translation>
    </message>
    <message>
      <source>{fix} finds nothing to change</source>
      <translation>{fix} 没有可改变的内容</translation>
    </message>
    <message>
      <source>{source} has several values for each of {count} scales; the largest of them is stored, because {engine} does not take so many here.</source>
      <translation>{source} 中有 {count} 个缩放因子各含多个值；只存储其中最大的，因为 {engine} 在此不接受这么多值。</translation>
    </message>
    <message>
      <source>{title}: the last shard's stays, which engines use.</source>
      <translation>{title}：保留最后一个分片中的，引擎使用的就是它。</translation>
    </message>
    <message>
      <source>Leave it out</source>
      <translation>请去掉它</translation>
    </message>
    <message>
      <source>{title}: {said}</source>
      <translation>{title}：{said}</translation>
    </message>
    <message>
      <source>the new header would be {length} bytes long and readers of safetensors accept {largest}</source>
      <translation>新头部将长 {length} 字节，而 safetensors 的读取程序最多接受 {largest}</translation>
    </message>
    <message>
      <source>the file does not begin with a safetensors header</source>
      <translation>该文件不以 safetensors 头部开头</translation>
    </message>
    <message>
      <source>two tensors of one shard would have this name</source>
      <translation>同一分片中将有两个张量使用此名称</translation>
    </message>
    <message>
      <source>Split the checkpoint into more shards, or use shorter names.</source>
      <translation>请把检查点拆分为更多分片，或使用更短的名称。</translation>
    </message>
    <message>
      <source>Drop one of them, or choose another naming convention.</source>
      <translation>请去掉其中一个，或选择其他命名约定。</translation>
    </message>
    <message>
      <source>the plan changes a tensor of a file that is not there</source>
      <translation>计划要改变的张量所在的文件不存在</translation>
    </message>
    <message>
      <source>the tensor is {dtype} {shape} and cannot become {new_dtype} {new_shape} without values</source>
      <translation>该张量为 {dtype} {shape}，没有值就不能变为 {new_dtype} {new_shape}</translation>
    </message>
    <message>
      <source>an added tensor needs a name, a type and a shape</source>
      <translation>新增的张量需要名称、类型和形状</translation>
    </message>
    <message>
      <source>{count} values do not fill the shape {shape}</source>
      <translation>{count} 个值与形状 {shape} 不符</translation>
    </message>
    <message>
      <source>the shard has no such tensor</source>
      <translation>该分片没有此张量</translation>
    </message>
    <message>
      <source>values are not written as type {dtype}</source>
      <translation>不支持将值写为类型 {dtype}</translation>
    </message>
    <message>
      <source>It changed since the checkpoint was opened; open the checkpoint again.</source>
      <translation>检查点打开之后它已发生变化；请重新打开检查点。</translation>
    </message>
    <message>
      <source>Use F32.</source>
      <translation>请使用 F32。</translation>
    </message>
    <message>
      <source>two tensors would have this name, one in {other} and one in {file}</source>
      <translation>将有两个张量使用此名称，一个在 {other} 中，一个在 {file} 中</translation>
    </message>
    <message>
      <source>Check the disk and the memory of this machine, then export again.</source>
      <translation>请检查本机的磁盘和内存，然后再次导出。</translation>
    </message>
    <message>
      <source>the written shard lacks a tensor</source>
      <translation>写出的分片缺少一个张量</translation>
    </message>
    <message>
      <source>the written tensor is {dtype} {shape} and not {planned_dtype} {planned_shape}</source>
      <translation>写出的张量为 {dtype} {shape}，而不是 {planned_dtype} {planned_shape}</translation>
    </message>
    <message>
      <source>the written text is not the planned one</source>
      <translation>写出的文本与计划不符</translation>
    </message>
    <message>
      <source>the written shard holds a tensor too many</source>
      <translation>写出的分片多出一个张量</translation>
    </message>
    <message>
      <source>the written values are not those planned</source>
      <translation>写出的值与计划不符</translation>
    </message>
    <message>
      <source>a written tensor has another length</source>
      <translation>写出的某个张量长度不同</translation>
    </message>
    <message>
      <source>the copy has {length} bytes and not {size}</source>
      <translation>副本有 {length} 字节，而不是 {size}</translation>
    </message>
    <message>
      <source>the file ended early while it was compared</source>
      <translation>比较过程中文件提前结束</translation>
    </message>
    <message>
      <source>the written bytes differ from the source's at byte {byte}</source>
      <translation>写出的字节在字节 {byte} 处与源不同</translation>
    </message>
    <message>
      <source>The export was finished already; nothing was written.</source>
      <translation>导出此前已完成；没有写入任何内容。</translation>
    </message>
    <message>
      <source>Checking what is there</source>
      <translation>检查已有内容</translation>
    </message>
    <message>
      <source>Copying</source>
      <translation>复制</translation>
    </message>
    <message>
      <source>Verifying</source>
      <translation>校验</translation>
    </message>
    <message>
      <source>what is finished waits for --resume</source>
      <translation>已完成的部分可用 --resume 继续</translation>
    </message>
    <message>
      <source>the export was taken back</source>
      <translation>导出已撤销</translation>
    </message>
    <message>
      <source>The folder that holds {folder} could not be flushed to the disk ({reason}).</source>
      <translation>{folder} 所在的文件夹未能刷写到磁盘（{reason}）。</translation>
    </message>
    <message>
      <source>{folder} is empty and could not be removed ({reason}); delete it.</source>
      <translation>{folder} 为空但无法删除（{reason}）；请手动删除。</translation>
    </message>
    <message>
      <source>is not what the export wrote</source>
      <translation>与导出所写的不同</translation>
    </message>
    <message>
      <source>the shard could not be linked ({reason})</source>
      <translation>无法为该分片建立硬链接（{reason}）</translation>
    </message>
    <message>
      <source>the source's file was replaced while it was linked</source>
      <translation>建立硬链接时源文件被替换</translation>
    </message>
    <message>
      <source>the file could not be copied ({reason}), and {consequence}</source>
      <translation>无法复制该文件（{reason}），{consequence}</translation>
    </message>
    <message>
      <source>Leave --link away or use --copy.</source>
      <translation>请去掉 --link 或使用 --copy。</translation>
    </message>
    <message>
      <source>there was no room to write the file ({reason}), and {consequence}</source>
      <translation>没有空间写入该文件（{reason}），{consequence}</translation>
    </message>
    <message>
      <source>Check the disks and their permissions, then export again.</source>
      <translation>请检查磁盘及其权限，然后再次导出。</translation>
    </message>
    <message>
      <source>nothing was left behind</source>
      <translation>没有留下任何内容</translation>
    </message>
    <message>
      <source>the folder could not be written ({reason}), and {left}</source>
      <translation>无法写入该文件夹（{reason}），{left}</translation>
    </message>
    <message>
      <source>Free some space, raise the limit on file sizes, or export to another disk.</source>
      <translation>请释放一些空间、提高文件大小上限，或导出到其他磁盘。</translation>
    </message>
    <message>
      <source>runs on doubtful values</source>
      <translation>使用可疑的值</translation>
    </message>
    <message>
      <source>{engine} {does}</source>
      <translation>{engine} {does}</translation>
    </message>
    <message>
      <source>{engines}.</source>
      <translation>{engines}。</translation>
    </message>
    <message>
      <source>No engine was asked.</source>
      <translation>没有询问任何引擎。</translation>
    </message>
    <message>
      <source>is not known</source>
      <translation>结果未知</translation>
    </message>
    <message>
      <source>refuses the model ({error})</source>
      <translation>拒绝模型（{error}）</translation>
    </message>
    <message>
      <source>stops while loading ({error})</source>
      <translation>在加载时停止（{error}）</translation>
    </message>
    <message>
      <source>stops after loading ({error})</source>
      <translation>在加载后停止（{error}）</translation>
    </message>
    <message>
      <source>works</source>
      <translation>正常工作</translation>
    </message>
    <message>
      <source>has no scale to load</source>
      <translation>没有缩放因子可加载</translation>
    </message>
    <message>
      <source>loses every scale without a word</source>
      <translation>悄然丢失所有缩放因子</translation>
    </message>
    <message>
      <source>loses every scale</source>
      <translation>丢失所有缩放因子</translation>
    </message>
    <message>
      <source>loads the scales for a cache that computes its own</source>
      <translation>加载缩放因子，但缓存自行计算缩放因子</translation>
    </message>
    <message>
      <source>loads the scales but keeps the cache in {dtype}</source>
      <translation>加载缩放因子但将缓存保持为 {dtype}</translation>
    </message>
    <message>
      <source>serves {served} of {expecting} layers</source>
      <translation>使 {expecting} 层中的 {served} 层得到缩放因子</translation>
    </message>
    <message>
      <source>{version} {does}</source>
      <translation>{version} {does}</translation>
    </message>
    <message>
      <source>{earlier}, {later}</source>
      <translation>{earlier}，{later}</translation>
    </message>
    <message>
      <source>{earlier} and {later}</source>
      <translation>{earlier}，{later}</translation>
    </message>
    <message>
      <source>{engine} as installed here</source>
      <translation>本机安装的 {engine}</translation>
    </message>
    <message>
      <source>vLLM {history}</source>
      <translation>vLLM {history}</translation>
    </message>
    <message>
      <source>serves no layer</source>
      <translation>没有一层得到缩放因子</translation>
    </message>
    <message>
      <source>{does} in {versions}</source>
      <translation>在 {versions} 中 {does}</translation>
    </message>
    <message>
      <source>every layer</source>
      <translation>每一层</translation>
    </message>
    <message>
      <source>{part} of {all} layers</source>
      <translation>共 {all} 层中的 {part} 层</translation>
    </message>
    <message>
      <source>{export} serves {layers} in {engines}: {command}.</source>
      <translation>{export} 可使 {layers} 得到缩放因子，适用于 {engines}：{command}。</translation>
    </message>
    <message>
      <source>An FP8 cache (--kv-cache-dtype fp8_e4m3) puts the scales to use in {engines}.</source>
      <translation>在 {engines} 中，FP8 缓存（--kv-cache-dtype fp8_e4m3）会使用这些缩放因子。</translation>
    </message>
    <message>
      <source>No export helps in any of them.</source>
      <translation>导出对其中任何一个都无济于事。</translation>
    </message>
    <message>
      <source>{does} from {first} to {last}</source>
      <translation>从 {first} 到 {last} {does}</translation>
    </message>
    <message>
      <source>No export helps in {engines}.</source>
      <translation>导出对 {engines} 无济于事。</translation>
    </message>
    <message>
      <source>{low} to {high}</source>
      <translation>{low} 至 {high}</translation>
    </message>
    <message>
      <source>{does} up to {version}</source>
      <translation>{version} 及以前 {does}</translation>
    </message>
    <message>
      <source>{does} since {version}</source>
      <translation>自 {version} 起 {does}</translation>
    </message>
    <message>
      <source>vLLM {versions}</source>
      <translation>vLLM {versions}</translation>
    </message>
    <message>
      <source>An export</source>
      <translation>导出</translation>
    </message>
    <message>
      <source>An export with {names} names</source>
      <translation>以 {names} 名称导出</translation>
    </message>
    <message>
      <source>Reading scales</source>
      <translation>读取缩放因子</translation>
    </message>
    <message>
      <source>more</source>
      <translation>增加</translation>
    </message>
    <message>
      <source>fewer</source>
      <translation>减少</translation>
    </message>
    <message>
      <source>{subject}: {difference}</source>
      <translation>{subject}：{difference}</translation>
    </message>
    <message>
      <source>{first} and {last}</source>
      <translation>{first} 和 {last}</translation>
    </message>
    <message>
      <source>the built-in profile of vLLM {version}</source>
      <translation>vLLM {version} 的内置配置</translation>
    </message>
    <message>
      <source>On this checkpoint {keys} {_end} differently: it serves {served} of {expecting} layers, {profile} {base_served} of {base_expecting}.</source>
      <translation>在此检查点上，{keys} 的结果不同：它让 {expecting} 层中的 {served} 层得到缩放因子，{profile} 则是 {base_expecting} 层中的 {base_served} 层。</translation>
    </message>
    <message>
      <source>{difference} ({consequence})</source>
      <translation>{difference}（{consequence}）</translation>
    </message>
    <message>
      <source>{count:,} quantization methods</source>
      <translation>{count:,} 种量化方法</translation>
    </message>
    <message>
      <source>{count:,} architectures</source>
      <translation>{count:,} 个架构</translation>
    </message>
    <message>
      <source>{change}: {count}: {names}</source>
      <translation>{change}：{count}：{names}</translation>
    </message>
    <message>
      <source>What it does with this checkpoint is not known; {profile} would answer for it.</source>
      <translation>它如何处理此检查点尚不清楚；可由 {profile} 代答。</translation>
    </message>
    <message>
      <source>On this checkpoint it does the same as {profile}.</source>
      <translation>在此检查点上，它与 {profile} 结果相同。</translation>
    </message>
    <message>
      <source>{count:,} more</source>
      <translation>另外 {count:,} 个</translation>
    </message>
    <message>
      <source>{sentence}.</source>
      <translation>{sentence}。</translation>
    </message>
    <message>
      <source>layers {numbers}</source>
      <translation>第 {numbers} 层</translation>
    </message>
    <message>
      <source>layer {numbers}</source>
      <translation>第 {numbers} 层</translation>
    </message>
    <message>
      <source>{layer} raises {error} after loading and should not</source>
      <translation>{layer} 在加载后引发 {error}，本不应引发异常</translation>
    </message>
    <message>
      <source>{layer} raises nothing after loading and should raise {expected}</source>
      <translation>{layer} 在加载后未引发异常，本应引发 {expected}</translation>
    </message>
    <message>
      <source>{layer} raises {error} after loading and should raise {expected}</source>
      <translation>{layer} 在加载后引发 {error}，本应引发 {expected}</translation>
    </message>
    <message>
      <source>device</source>
      <translation>设备</translation>
    </message>
    <message>
      <source>post-process</source>
      <translation>后处理</translation>
    </message>
    <message>
      <source>{layer}, {role}: {name} holds {held}, and {expected} the checkpoint says (parted at: {step})</source>
      <translation>{layer}，{role}：{name} 持有 {held}，而检查点中为 {expected}（分歧始于：{step}）</translation>
    </message>
    <message>
      <source>{layer}, {role}: there is no {name}, for which {expected} the checkpoint says (parted at: {step})</source>
      <translation>{layer}，{role}：没有 {name}，而检查点中为 {expected}（分歧始于：{step}）</translation>
    </message>
    <message>
      <source>{layer}, {role}: {name} holds {held}, and {expected} was predicted (parted at: {step})</source>
      <translation>{layer}，{role}：{name} 持有 {held}，而预测为 {expected}（分歧始于：{step}）</translation>
    </message>
    <message>
      <source>{layer}, {role}: there is no {name}, for which {expected} was predicted (parted at: {step})</source>
      <translation>{layer}，{role}：没有 {name}，而预测为 {expected}（分歧始于：{step}）</translation>
    </message>
    <message>
      <source>{items} and {count} more</source>
      <translation>{items} 及另外 {count} 个</translation>
    </message>
    <message>
      <source>load</source>
      <translation>加载</translation>
    </message>
    <message>
      <source>read</source>
      <translation>读取</translation>
    </message>
    <message>
      <source>{numbers} in head {heads}</source>
      <translation>{numbers}（头 {heads}）</translation>
    </message>
    <message>
      <source>{numbers} in heads {heads}</source>
      <translation>{numbers}（头 {heads}）</translation>
    </message>
    <message>
      <source>PyTorch {version} finds no CUDA device</source>
      <translation>PyTorch {version} 找不到 CUDA 设备</translation>
    </message>
    <message>
      <source>PyTorch {version} finds no CUDA device (CUDA_VISIBLE_DEVICES is {visible!r})</source>
      <translation>PyTorch {version} 找不到 CUDA 设备（CUDA_VISIBLE_DEVICES 为 {visible!r}）</translation>
    </message>
    <message>
      <source>{device} has not enough free memory: {free:.1f} of {total:.1f} GiB are free</source>
      <translation>{device} 的空闲内存不足：{total:.1f} GiB 中空闲 {free:.1f} GiB</translation>
    </message>
    <message>
      <source>PyTorch {version} finds no CUDA device: {error}</source>
      <translation>PyTorch {version} 找不到 CUDA 设备：{error}</translation>
    </message>
    <message>
      <source>the NVIDIA driver here is too old for PyTorch {version}, which was built for CUDA {cuda}</source>
      <translation>这里的 NVIDIA 驱动对 PyTorch {version} 来说太旧，后者是为 CUDA {cuda} 构建的</translation>
    </message>
    <message>
      <source>the NVIDIA driver here is too old for PyTorch {version}, which was built for its CUDA</source>
      <translation>这里的 NVIDIA 驱动对 PyTorch {version} 及其所用的 CUDA 来说太旧</translation>
    </message>
    <message>
      <source>Run `{command}` on a machine with a GPU, or `{instead}` here</source>
      <translation>请在有 GPU 的机器上运行 `{command}`，或在这里运行 `{instead}`</translation>
    </message>
    <message>
      <source>{device} cannot be used: {error}</source>
      <translation>无法使用 {device}：{error}</translation>
    </message>
    <message>
      <source>{name!r} is no device that KVScope loads on</source>
      <translation>{name!r} 不是 KVScope 可用于加载的设备</translation>
    </message>
    <message>
      <source>there is no {name} on this machine, only cuda:0 alone</source>
      <translation>此机器上没有 {name}，只有 cuda:0</translation>
    </message>
    <message>
      <source>there is no {name} on this machine, only cuda:0 to cuda:{last}</source>
      <translation>此机器上没有 {name}，只有 cuda:0 至 cuda:{last}</translation>
    </message>
    <message>
      <source>PyTorch {version} is built without CUDA</source>
      <translation>PyTorch {version} 构建时未包含 CUDA</translation>
    </message>
    <message>
      <source>no reason given</source>
      <translation>未给出原因</translation>
    </message>
    <message>
      <source>Free some, or run `{command}`</source>
      <translation>请释放一些，或运行 `{command}`</translation>
    </message>
    <message>
      <source>{device} is busy: another process has it to itself</source>
      <translation>{device} 正忙：另一个进程独占了它</translation>
    </message>
    <message>
      <source>Wait for that one, choose another device, or run `{command}`</source>
      <translation>请等待该进程结束、选择其他设备，或运行 `{command}`</translation>
    </message>
    <message>
      <source>{device} has not enough free memory</source>
      <translation>{device} 的空闲内存不足</translation>
    </message>
    <message>
      <source>Choose cpu or cuda:N</source>
      <translation>请选择 cpu 或 cuda:N</translation>
    </message>
    <message>
      <source>Run `{command}`</source>
      <translation>请运行 `{command}`</translation>
    </message>
    <message>
      <source>Update the driver, or run `{command}`</source>
      <translation>请更新驱动，或运行 `{command}`</translation>
    </message>
    <message>
      <source>PyTorch {version} has no code for {device}</source>
      <translation>PyTorch {version} 没有适用于 {device} 的代码</translation>
    </message>
    <message>
      <source>Install a PyTorch built for it, or run `{command}`</source>
      <translation>请安装为其构建的 PyTorch，或运行 `{command}`</translation>
    </message>
    <message>
      <source>{device} failed: {error}</source>
      <translation>{device} 失败：{error}</translation>
    </message>
    <message>
      <source>Start KVScope again, or run `{command}`</source>
      <translation>请重新启动 KVScope，或运行 `{command}`</translation>
    </message>
    <message>
      <source>What is said about these layers holds for the prediction alone, not for the loader.</source>
      <translation>关于这些层的说法只适用于预测，不适用于加载器。</translation>
    </message>
    <message>
      <source>{first}; and {count:,} more</source>
      <translation>{first}；以及另外 {count:,} 处</translation>
    </message>
    <message>
      <source>They parted at: {steps}.</source>
      <translation>分歧始于：{steps}。</translation>
    </message>
    <message>
      <source>The loader did not do what was predicted</source>
      <translation>加载器的行为与预测不符</translation>
    </message>
    <message>
      <source>Trust what the layers were seen to hold, and report this with what `kvscope verify --json` prints.</source>
      <translation>请以各层实际持有的值为准，并附上 `kvscope verify --json` 的输出报告此问题。</translation>
    </message>
    <message>
      <source>the loader of {engine}, run on {device}</source>
      <translation>{engine} 的加载器，运行于 {device}</translation>
    </message>
    <message>
      <source>a KV cache of {dtype} is not computed here, only float8 and plain ones are</source>
      <translation>这里不计算 {dtype} 的 KV 缓存，只计算 float8 和普通类型的</translation>
    </message>
    <message>
      <source>Running the attention</source>
      <translation>正在运行注意力</translation>
    </message>
    <message>
      <source>not projected: {reason}</source>
      <translation>未使用投影：{reason}</translation>
    </message>
    <message>
      <source>config.json gives attention layers {heads:,} heads of {size:,} numbers, more than are computed here</source>
      <translation>config.json 为每个注意力层声明了 {heads:,} 个头、每头 {size:,} 个数，超出此处的计算范围</translation>
    </message>
    <message>
      <source>layers</source>
      <translation>层</translation>
    </message>
    <message>
      <source>Correct its head_dim and hidden_size, or leave --forward out.</source>
      <translation>请修正其中的 head_dim 和 hidden_size，或不使用 --forward。</translation>
    </message>
    <message>
      <source>the layer raises {error} after loading</source>
      <translation>该层在加载后引发 {error}</translation>
    </message>
    <message>
      <source>synthetic, filling the range that the scale claims</source>
      <translation>合成数据，填满缩放因子所声称的范围</translation>
    </message>
    <message>
      <source>synthetic, with a standard deviation of 1: no scale claims a range</source>
      <translation>合成数据，标准差为 1：没有缩放因子声称范围</translation>
    </message>
    <message>
      <source>made by the checkpoint's projections from synthetic hidden states</source>
      <translation>由检查点的投影从合成的隐藏状态得出</translation>
    </message>
    <message>
      <source>with the scales received</source>
      <translation>使用收到的缩放因子</translation>
    </message>
    <message>
      <source>the one layer</source>
      <translation>唯一的层</translation>
    </message>
    <message>
      <source>at 1.0</source>
      <translation>以 1.0 运行</translation>
    </message>
    <message>
      <source>with k and v exchanged</source>
      <translation>k 与 v 互换</translation>
    </message>
    <message>
      <source>Attention not run: {reason}</source>
      <translation>未运行注意力：{reason}</translation>
    </message>
    <message>
      <source>The cache keeps {format}, to which no scale is applied: nothing is lost</source>
      <translation>缓存保存为 {format}，不应用缩放因子：没有损失</translation>
    </message>
    <message>
      <source>{layers} with the scales received: {received}, no more than rounding to {format} costs ({one} at 1.0, {swapped} with k and v exchanged)</source>
      <translation>{layers}使用收到的缩放因子：误差 {received}，不超过舍入到 {format} 的代价（使用 1.0 时为 {one}，k 与 v 互换时为 {swapped}）</translation>
    </message>
    <message>
      <source>{layers} {cause}: {received} instead of {fitted}</source>
      <translation>{layers}{cause}：误差 {received}，而非 {fitted}</translation>
    </message>
    <message>
      <source>no layer got as far as that</source>
      <translation>没有层进行到这一步</translation>
    </message>
    <message>
      <source>no method in core.loading.kv_cache does what {method} predicts</source>
      <translation>core.loading.kv_cache 中没有方法能实现 {method} 的预测</translation>
    </message>
    <message>
      <source>Run `{command}` to load on one rank</source>
      <translation>请运行 `{command}`，在单个 rank 上加载</translation>
    </message>
    <message>
      <source>{count:,} GPUs</source>
      <translation>{count:,} 个 GPU</translation>
    </message>
    <message>
      <source>Loading on {ranks} ranks</source>
      <translation>正在 {ranks} 个 rank 上加载</translation>
    </message>
    <message>
      <source>{heads} key/value heads cannot be shared by {ranks} ranks</source>
      <translation>{heads} 个键/值头无法由 {ranks} 个 rank 分担</translation>
    </message>
    <message>
      <source>{count} from {device} on</source>
      <translation>从 {device} 起的 {count} 个</translation>
    </message>
    <message>
      <source>{ranks} ranks need {ranks} GPUs, and this machine has {gpus}</source>
      <translation>{ranks} 个 rank 需要 {ranks} 个 GPU，而此机器有 {gpus}</translation>
    </message>
    <message>
      <source>ranks</source>
      <translation>个 rank</translation>
    </message>
    <message>
      <source>rank {rank} ended without an answer (exit status {status})</source>
      <translation>rank {rank} 未作答就结束了（退出状态 {status}）</translation>
    </message>
    <message>
      <source>rank {rank} failed: {error}</source>
      <translation>rank {rank} 失败：{error}</translation>
    </message>
    <message>
      <source>Run `{command} --tensor-parallel {ranks}`, or give as many ranks as there are GPUs</source>
      <translation>请运行 `{command} --tensor-parallel {ranks}`，或让 rank 数不超过 GPU 数</translation>
    </message>
    <message>
      <source>rank {rank} gave no answer within {time:.0f} s</source>
      <translation>rank {rank} 在 {time:.0f} 秒内未作答</translation>
    </message>
    <message>
      <source>queries are drawn</source>
      <translation>查询为随机生成</translation>
    </message>
    <message>
      <source>{name} has {rows} rows, and not {wanted}</source>
      <translation>{name} 有 {rows} 行，而不是 {wanted} 行</translation>
    </message>
    <message>
      <source>{name} has a weight scale of shape {shape}, which is not computed here</source>
      <translation>{name} 的权重缩放因子形状为 {shape}，这里不计算</translation>
    </message>
    <message>
      <source>the checkpoint has several projections for {layer}</source>
      <translation>检查点中有 {layer} 的多个投影</translation>
    </message>
    <message>
      <source>the checkpoint has no projections for {layer}</source>
      <translation>检查点中没有 {layer} 的投影</translation>
    </message>
    <message>
      <source>{name}.weight is {kind}, which is not computed here</source>
      <translation>{name}.weight 为 {kind}，这里不计算</translation>
    </message>
    <message>
      <source>{name}.weight is float8 without a scale</source>
      <translation>{name}.weight 为 float8，但没有缩放因子</translation>
    </message>
    <message>
      <source>{module} makes numbers that are not finite</source>
      <translation>{module} 得出非有限的数</translation>
    </message>
    <message>
      <source>{module} mixes its heads</source>
      <translation>{module} 的各头混在一起</translation>
    </message>
    <message>
      <source>there is no {name}</source>
      <translation>没有 {name}</translation>
    </message>
    <message>
      <source>{name} is larger than {size} GiB</source>
      <translation>{name} 大于 {size} GiB</translation>
    </message>
    <message>
      <source>{name} is packed</source>
      <translation>{name} 是打包存储的</translation>
    </message>
    <message>
      <source>{ranks} ranks by NCCL</source>
      <translation>{ranks} 个 rank，通过 NCCL</translation>
    </message>
    <message>
      <source>{ranks} ranks by gloo</source>
      <translation>{ranks} 个 rank，通过 gloo</translation>
    </message>
    <message>
      <source>join</source>
      <translation>加入</translation>
    </message>
    <message>
      <source>scales of {count} other ranks received</source>
      <translation>收到另外 {count} 个 rank 的缩放因子</translation>
    </message>
    <message>
      <source>gather</source>
      <translation>汇集</translation>
    </message>
    <message>
      <source>{part:,} of {count:,} tensors</source>
      <translation>{count:,} 个张量中的 {part:,} 个</translation>
    </message>
    <message>
      <source>{count:,} parameters from {device}</source>
      <translation>从 {device} 读回 {count:,} 个参数</translation>
    </message>
    <message>
      <source>{part:,} of {count:,} layers went through</source>
      <translation>{count:,} 层中有 {part:,} 层通过</translation>
    </message>
    <message>
      <source>Building the attention layers</source>
      <translation>正在构建注意力层</translation>
    </message>
    <message>
      <source>{layers:,} attention layers among {modules:,} modules</source>
      <translation>{modules:,} 个模块中有 {layers:,} 个注意力层</translation>
    </message>
    <message>
      <source>Moving to the device</source>
      <translation>正在移到设备上</translation>
    </message>
    <message>
      <source>scale parameters and buffers to {device}</source>
      <translation>将缩放因子参数和缓冲区移到 {device}</translation>
    </message>
    <message>
      <source>Loading</source>
      <translation>正在加载</translation>
    </message>
    <message>
      <source>{count:,} parameters written</source>
      <translation>写入 {count:,} 个参数</translation>
    </message>
    <message>
      <source>Post-processing</source>
      <translation>正在后处理</translation>
    </message>
    <message>
      <source>read back parameters</source>
      <translation>读回参数</translation>
    </message>
    <message>
      <source>read back</source>
      <translation>读回</translation>
    </message>
    <message>
      <source>{count:,} scales from {device}</source>
      <translation>从 {device} 读回 {count:,} 个缩放因子</translation>
    </message>
    <message>
      <source>{part:,} of {count:,} tensors bit for bit, {size:,.1f} MB</source>
      <translation>{count:,} 个张量中的 {part:,} 个逐位相同，{size:,.1f} MB</translation>
    </message>
    <message>
      <source>{layers:,} layers, {tokens} tokens each, {time:.2f} ms for a pass of a layer</source>
      <translation>{layers:,} 层，每层 {tokens} 个 token，一层的一次计算用时 {time:.2f} ms</translation>
    </message>
    <message>
      <source>{layers:,} layers, {tokens} tokens each</source>
      <translation>{layers:,} 层，每层 {tokens} 个 token</translation>
    </message>
    <message>
      <source>{device}: its context, once in a process</source>
      <translation>{device}：建立上下文，每个进程一次</translation>
    </message>
    <message>
      <source>build</source>
      <translation>构建</translation>
    </message>
    <message>
      <source>move</source>
      <translation>移动</translation>
    </message>
    <message>
      <source>tensors</source>
      <translation>个张量</translation>
    </message>
    <message>
      <source>compare weights</source>
      <translation>比较权重</translation>
    </message>
    <message>
      <source>attention</source>
      <translation>注意力</translation>
    </message>
    <message>
      <source>start device</source>
      <translation>启动设备</translation>
    </message>
    <message>
      <source>the loader that KVScope runs is that of {known}, not {engine}'s</source>
      <translation>KVScope 运行的是 {known} 的加载器，而不是 {engine} 的</translation>
    </message>
    <message>
      <source>Verify with `--engine {engine}`</source>
      <translation>请用 `--engine {engine}` 验证</translation>
    </message>
    <message>
      <source>{loader} loads in a loop of an older release, which is predicted only</source>
      <translation>{loader} 以旧版本的循环加载，只能预测</translation>
    </message>
    <message>
      <source>rank {rank}: {text}</source>
      <translation>rank {rank}：{text}</translation>
    </message>
    <message>
      <source>all {count} attention layers on each of {ranks} ranks</source>
      <translation>{ranks} 个 rank 各自的全部 {count} 个注意力层</translation>
    </message>
    <message>
      <source>all {count} attention layers</source>
      <translation>全部 {count} 个注意力层</translation>
    </message>
    <message>
      <source>Observed on {device}: {layers} hold what was predicted ({values:,} values, compared exactly).</source>
      <translation>在 {device} 上实测：{layers}所持有的与预测一致（{values:,} 个值，精确比较）。</translation>
    </message>
    <message>
      <source>Observed on {device}: {layers} hold what was predicted ({values:,} values, compared exactly); {tensors:,} other tensors arrived bit for bit.</source>
      <translation>在 {device} 上实测：{layers}所持有的与预测一致（{values:,} 个值，精确比较）；另有 {tensors:,} 个张量逐位到达。</translation>
    </message>
    <message>
      <source>{first} to {last} ({device})</source>
      <translation>{first} 至 {last}（{device}）</translation>
    </message>
    <message>
      <source>Not verified: {reason}.</source>
      <translation>未验证：{reason}。</translation>
    </message>
    <message>
      <source>{engine} refuses to build this model, so that nothing was loaded: {error} ({reason}).</source>
      <translation>{engine} 拒绝构建此模型，因此什么也没有加载：{error}（{reason}）。</translation>
    </message>
    <message>
      <source>{engine} refuses to build this model, so that nothing was loaded: {error}.</source>
      <translation>{engine} 拒绝构建此模型，因此什么也没有加载：{error}。</translation>
    </message>
    <message>
      <source>Contradicted on {device}: {first} ({count} in all).</source>
      <translation>在 {device} 上与预测不符：{first}（共 {count} 处）。</translation>
    </message>
    <message>
      <source>Contradicted on {device}: {first}.</source>
      <translation>在 {device} 上与预测不符：{first}。</translation>
    </message>
    <message>
      <source>Observed on {device}: the load raises {error} at {key}, as predicted.</source>
      <translation>在 {device} 上实测：加载在 {key} 处引发 {error}，与预测一致。</translation>
    </message>
    <message>
      <source>Observed on {device}: after the last tensor the load raises {error}, as predicted.</source>
      <translation>在 {device} 上实测：在最后一个张量之后，加载引发 {error}，与预测一致。</translation>
    </message>
    <message>
      <source>Observed on {device}: the tensors load, and then {part} of {count} attention layers raise {error}, as predicted.</source>
      <translation>在 {device} 上实测：张量已加载，随后 {count} 个注意力层中的 {part} 个引发 {error}，与预测一致。</translation>
    </message>
    <message>
      <source>No run of the engine has confirmed the modules themselves.</source>
      <translation>模块本身尚未经引擎的运行证实。</translation>
    </message>
    <message>
      <source>{ranks} ranks cannot load anything</source>
      <translation>{ranks} 个 rank 无法加载任何东西</translation>
    </message>
    <message>
      <source>several ranks load the scales alone</source>
      <translation>多个 rank 时只加载缩放因子</translation>
    </message>
    <message>
      <source>the attention runs on one rank</source>
      <translation>注意力只在一个 rank 上运行</translation>
    </message>
    <message>
      <source>{values:,} values, {wrong:,} differ</source>
      <translation>{values:,} 个值，{wrong:,} 个不同</translation>
    </message>
    <message>
      <source>the load goes through, and should raise {error} at {key}</source>
      <translation>加载顺利完成，本应在 {key} 处引发 {error}</translation>
    </message>
    <message>
      <source>Comparing</source>
      <translation>正在比较</translation>
    </message>
    <message>
      <source>the module tree has no place for {key}, which is no KV scale</source>
      <translation>模块树中没有 {key} 的位置，而它不是 KV 缩放因子</translation>
    </message>
    <message>
      <source>the load raises {error} at {key}, and should raise {expected} at {expected_key}</source>
      <translation>加载在 {key} 处引发 {error}，本应在 {expected_key} 处引发 {expected}</translation>
    </message>
    <message>
      <source>the load raises {error} at {key}, and should go through</source>
      <translation>加载在 {key} 处引发 {error}，本应顺利完成</translation>
    </message>
    <message>
      <source>Give --tensor-parallel 1 or more</source>
      <translation>请将 --tensor-parallel 设为 1 或更大</translation>
    </message>
    <message>
      <source>Leave out --weights all or --tensor-parallel</source>
      <translation>请去掉 --weights all 或 --tensor-parallel</translation>
    </message>
    <message>
      <source>Leave out --forward or --tensor-parallel</source>
      <translation>请去掉 --forward 或 --tensor-parallel</translation>
    </message>
    <message>
      <source>compare</source>
      <translation>比较</translation>
    </message>
    <message>
      <source>{name} was written, and no tensor should reach it</source>
      <translation>{name} 已被写入，而本不应有张量到达它</translation>
    </message>
    <message>
      <source>{name} was not written, and one should reach it</source>
      <translation>{name} 未被写入，而本应有张量到达它</translation>
    </message>
    <message>
      <source>the model's module tree is not known</source>
      <translation>该模型的模块树未知</translation>
    </message>
    <message>
      <source>rank {rank} received another {name} than rank {sender} holds</source>
      <translation>rank {rank} 收到的 {name} 与 rank {sender} 持有的不同</translation>
    </message>
    <message>
      <source>Comparing weights</source>
      <translation>正在比较权重</translation>
    </message>
    <message>
      <source>{parameter} does not hold the bytes of {key}</source>
      <translation>{parameter} 持有的字节与 {key} 不同</translation>
    </message>
    <message>
      <source>Predicting every engine</source>
      <translation>预测每个引擎</translation>
    </message>
    <message>
      <source>engines</source>
      <translation>个引擎</translation>
    </message>
    <message>
      <source>rule {pattern!r} is not a regular expression: {error}</source>
      <translation>规则 {pattern!r} 不是正则表达式：{error}</translation>
    </message>
    <message>
      <source>rule {pattern!r} has a replacement that does not fit it, {replacement!r}: {error}</source>
      <translation>规则 {pattern!r} 的替换文本 {replacement!r} 与其不匹配：{error}</translation>
    </message>
    <message>
      <source>shadowed by the {kind} rule {rule}: {why}</source>
      <translation>被 {kind} 规则 {rule} 遮蔽：{why}</translation>
    </message>
    <message>
      <source>{loader} runs before {other}</source>
      <translation>{loader} 先于 {other} 运行</translation>
    </message>
    <message>
      <source>{rule} -&gt; dropped</source>
      <translation>{rule} -&gt; 丢弃</translation>
    </message>
    <message>
      <source>{kind} rules run before {other} rules</source>
      <translation>{kind} 规则先于 {other} 规则运行</translation>
    </message>
    <message>
      <source>it stands before this one</source>
      <translation>它排在此规则之前</translation>
    </message>
    <message>
      <source>{rule} leaves names alone that look like {name}</source>
      <translation>{rule} 不处理形如 {name} 的名称</translation>
    </message>
    <message>
      <source>{rule} wants {wanted} where {name} has {found}</source>
      <translation>{rule} 要求 {wanted}，而 {name} 中是 {found}</translation>
    </message>
    <message>
      <source>the pattern {pattern!r} did not come to an end with the name {name!r} in {limit:g} s</source>
      <translation>模式 {pattern!r} 在 {limit:g} 秒内未能完成对名称 {name!r} 的匹配</translation>
    </message>
    <message>
      <source>Write it without a repetition inside a repetition</source>
      <translation>请改写为不含嵌套重复的形式</translation>
    </message>
    <message>
      <source>the output cannot be written: {error}</source>
      <translation>无法写入输出：{error}</translation>
    </message>
    <message>
      <source>Write it to a file or pipe with room</source>
      <translation>请写入有空间的文件或管道</translation>
    </message>
    <message>
      <source>chosen explicitly</source>
      <translation>明确选择</translation>
    </message>
    <message>
      <source>ModelOpt declares the KV cache as {declared}</source>
      <translation>ModelOpt 将 KV 缓存声明为 {declared}</translation>
    </message>
    <message>
      <source>compressed-tensors without a kv_cache_scheme: model dtype</source>
      <translation>compressed-tensors 没有 kv_cache_scheme：使用模型数据类型</translation>
    </message>
    <message>
      <source>no quantization declared: model dtype</source>
      <translation>未声明量化：使用模型数据类型</translation>
    </message>
    <message>
      <source>vLLM 0.33.0 does not resolve auto for {method}: model dtype</source>
      <translation>vLLM 0.33.0 不为 {method} 解析 auto：使用模型数据类型</translation>
    </message>
    <message>
      <source>vLLM 0.33.0 resolves auto from the top-level quantization_config only: model dtype</source>
      <translation>vLLM 0.33.0 只从顶层的 quantization_config 解析 auto：使用模型数据类型</translation>
    </message>
    <message>
      <source>ModelOpt declares no KV-cache algorithm: model dtype</source>
      <translation>ModelOpt 未声明 KV 缓存算法：使用模型数据类型</translation>
    </message>
    <message>
      <source>vLLM 0.33.0 knows no KV-cache dtype for ModelOpt's {declared!r}: model dtype</source>
      <translation>vLLM 0.33.0 没有与 ModelOpt 的 {declared!r} 对应的 KV 缓存数据类型：使用模型数据类型</translation>
    </message>
    <message>
      <source>vLLM 0.33.0 reads bfloat16 as auto for DeepSeek V3.2</source>
      <translation>对于 DeepSeek V3.2，vLLM 0.33.0 将 bfloat16 视为 auto</translation>
    </message>
    <message>
      <source>a compressed-tensors kv_cache_scheme is not applied by MLAAttention: model dtype</source>
      <translation>MLAAttention 不应用 compressed-tensors 的 kv_cache_scheme：使用模型数据类型</translation>
    </message>
    <message>
      <source>compressed-tensors declares a kv_cache_scheme</source>
      <translation>compressed-tensors 声明了 kv_cache_scheme</translation>
    </message>
    <message>
      <source>{file}: NUL characters were removed from {places}</source>
      <translation>{file}：已从 {places} 中去除 NUL 字符</translation>
    </message>
    <message>
      <source>{file} holds a JSON {kind} instead of an object; it was not used</source>
      <translation>{file} 含有的是 JSON {kind} 而不是对象；未使用它</translation>
    </message>
    <message>
      <source>it is nested too deeply</source>
      <translation>嵌套太深</translation>
    </message>
    <message>
      <source>{file} could not be read and was not used: {reason}</source>
      <translation>无法读取 {file}，未使用它：{reason}</translation>
    </message>
    <message>
      <source>the config files could not be listed: {error}</source>
      <translation>无法列出配置文件：{error}</translation>
    </message>
    <message>
      <source>{file} is there but could not be read as a JSON object; it was not used</source>
      <translation>{file} 存在，但无法作为 JSON 对象读取；未使用它</translation>
    </message>
    <message>
      <source>tensor</source>
      <translation>张量</translation>
    </message>
    <message>
      <source>head</source>
      <translation>头</translation>
    </message>
    <message>
      <source>channel</source>
      <translation>通道</translation>
    </message>
    <message>
      <source>group</source>
      <translation>组</translation>
    </message>
    <message>
      <source>block</source>
      <translation>块</translation>
    </message>
    <message>
      <source>token</source>
      <translation>token</translation>
    </message>
    <message>
      <source>token and head</source>
      <translation>token 与头</translation>
    </message>
    <message>
      <source>tensor over block scales</source>
      <translation>张量（其下为块缩放因子）</translation>
    </message>
    <message>
      <source>{scheme}, dynamic</source>
      <translation>{scheme}，动态</translation>
    </message>
    <message>
      <source>{scheme}, static</source>
      <translation>{scheme}，静态</translation>
    </message>
    <message>
      <source>{bits}-bit float</source>
      <translation>{bits} 位浮点</translation>
    </message>
    <message>
      <source>{bits}-bit int</source>
      <translation>{bits} 位整数</translation>
    </message>
    <message>
      <source>{scheme}, one scale per {unit}</source>
      <translation>{scheme}，每个{unit}一个缩放因子</translation>
    </message>
    <message>
      <source>{scheme}, with zero points</source>
      <translation>{scheme}，带零点</translation>
    </message>
    <message>
      <source>{bits}-bit number</source>
      <translation>{bits} 位数</translation>
    </message>
    <message>
      <source>none</source>
      <translation>无</translation>
    </message>
    <message>
      <source>a scheme of its own</source>
      <translation>自己的方案</translation>
    </message>
    <message>
      <source>{place} is a JSON {kind}, not an object, and says nothing usable</source>
      <translation>{place} 是 JSON {kind}，不是对象，没有可用的内容</translation>
    </message>
    <message>
      <source>config.json is TensorRT-LLM's (one 'architecture', no 'model_type'): vLLM and SGLang do not open this folder</source>
      <translation>config.json 是 TensorRT-LLM 的（有一个 'architecture'，没有 'model_type'）：vLLM 和 SGLang 不打开此文件夹</translation>
    </message>
    <message>
      <source>{place} names no quant_algo (only the KV cache is quantized): vLLM 0.33.0 refuses the model</source>
      <translation>{place} 未写明 quant_algo（只量化了 KV 缓存）：vLLM 0.33.0 拒绝该模型</translation>
    </message>
    <message>
      <source>{used} and {other} disagree on quant_algo: {mine} and {theirs}; vLLM uses {used}</source>
      <translation>{used} 和 {other} 的 quant_algo 不一致：{mine} 和 {theirs}；vLLM 使用 {used}</translation>
    </message>
    <message>
      <source>{used} and {other} disagree on the KV cache: {mine} and {theirs}; vLLM uses {used}</source>
      <translation>{used} 和 {other} 对 KV 缓存的说法不一致：{mine} 和 {theirs}；vLLM 使用 {used}</translation>
    </message>
    <message>
      <source>{used} and {other} disagree on quant_method: {mine} and {theirs}; vLLM uses {used}</source>
      <translation>{used} 和 {other} 的 quant_method 不一致：{mine} 和 {theirs}；vLLM 使用 {used}</translation>
    </message>
    <message>
      <source>{place}: vLLM 0.33.0 takes the method from there but not the KV cache: --kv-cache-dtype auto stays in the model dtype</source>
      <translation>{place}：vLLM 0.33.0 从那里读取方法，但不读取 KV 缓存：--kv-cache-dtype auto 保持模型数据类型</translation>
    </message>
    <message>
      <source>{place} has a per-head KV scheme but no config_groups: vLLM 0.33.0 then does not know the head counts and fails while loading the first per-head scale</source>
      <translation>{place} 有逐头的 KV 方案，但没有 config_groups：vLLM 0.33.0 因而不知道头数，在加载第一个逐头缩放因子时失败</translation>
    </message>
    <message>
      <source>{place}: the KV cache is declared as {scheme}, but export.kv_cache_group is empty, so vLLM 0.33.0 does not check it and treats the layers as FP8 per tensor</source>
      <translation>{place}：KV 缓存声明为 {scheme}，但 export.kv_cache_group 为空，因此 vLLM 0.33.0 不检查它，并将各层视为逐张量 FP8</translation>
    </message>
    <message>
      <source>attn_quant_config.kv_cache_quant treats K and V differently: {k} and {v}</source>
      <translation>attn_quant_config.kv_cache_quant 对 K 和 V 的处理不同：{k} 和 {v}</translation>
    </message>
    <message>
      <source>no file declares any quantization, but ModelOpt's quantizers left _amax tensors: a plain save_pretrained, not an export</source>
      <translation>没有文件声明任何量化，但 ModelOpt 的量化器留下了 _amax 张量：这是普通的 save_pretrained，不是导出</translation>
    </message>
    <message>
      <source>{file} stands beside {place}; vLLM 0.33.0 takes quantized_layers from it</source>
      <translation>{file} 与 {place} 并存；vLLM 0.33.0 从中读取 quantized_layers</translation>
    </message>
    <message>
      <source>{file} stands beside {place}; vLLM 0.33.0 does not read it</source>
      <translation>{file} 与 {place} 并存；vLLM 0.33.0 不读取它</translation>
    </message>
    <message>
      <source>attention is quantized as a whole ({field}); the tool writes kv_cache_scheme along with it</source>
      <translation>注意力作为整体量化（{field}）；该工具随之写入 kv_cache_scheme</translation>
    </message>
    <message>
      <source>{field}: vLLM 0.33.0's method {method} does not read it; --kv-cache-dtype auto stays in the model dtype</source>
      <translation>{field}：vLLM 0.33.0 的方法 {method} 不读取它；--kv-cache-dtype auto 保持模型数据类型</translation>
    </message>
    <message>
      <source>{field} is dynamic: the tool stores no scales, and vLLM 0.33.0 runs such layers at 1.0</source>
      <translation>{field} 是动态的：该工具不存储缩放因子，vLLM 0.33.0 以 1.0 运行这些层</translation>
    </message>
    <message>
      <source>{place} has no version (quantization_status: {status}): llm-compressor 0.6 or older</source>
      <translation>{place} 没有版本号（quantization_status：{status}）：llm-compressor 0.6 或更旧</translation>
    </message>
    <message>
      <source>{place}: vLLM 0.33.0 refuses it ({error})</source>
      <translation>{place}：vLLM 0.33.0 拒绝它（{error}）</translation>
    </message>
    <message>
      <source>{place} stands where vLLM 0.33.0 does not look: it builds the model unquantized</source>
      <translation>{place} 位于 vLLM 0.33.0 不查看的地方：它以未量化方式构建模型</translation>
    </message>
    <message>
      <source>{file} names no quant_algo and config.json has no quantization_config: vLLM 0.33.0 builds the model unquantized and ignores its KV scales</source>
      <translation>{file} 未写明 quant_algo，config.json 也没有 quantization_config：vLLM 0.33.0 以未量化方式构建模型，并忽略其 KV 缩放因子</translation>
    </message>
    <message>
      <source>{file} declares quantization but config.json has no quantization_config: vLLM 0.33.0 builds the model unquantized</source>
      <translation>{file} 声明了量化，但 config.json 没有 quantization_config：vLLM 0.33.0 以未量化方式构建模型</translation>
    </message>
    <message>
      <source>{file} is read by Ascend's engines only: vLLM 0.33.0 builds the model unquantized</source>
      <translation>{file} 只有昇腾的引擎会读取：vLLM 0.33.0 以未量化方式构建模型</translation>
    </message>
    <message>
      <source>vLLM takes one-level KV quantization from Quark, and this one has two levels</source>
      <translation>vLLM 只接受 Quark 的单级 KV 量化，而这里有两级</translation>
    </message>
    <message>
      <source>method {method} brings KV scales, which vLLM applies to e4m3 only: use --kv-cache-dtype fp8</source>
      <translation>方法 {method} 带有 KV 缩放因子，vLLM 只将其用于 e4m3：请使用 --kv-cache-dtype fp8</translation>
    </message>
    <message>
      <source>TensorRT-LLM wrote this folder, so Transformers cannot tell which model it is</source>
      <translation>此文件夹由 TensorRT-LLM 写出，因此 Transformers 无法判断是哪个模型</translation>
    </message>
    <message>
      <source>config.json has no model_type, so Transformers cannot tell which model it is</source>
      <translation>config.json 没有 model_type，因此 Transformers 无法判断是哪个模型</translation>
    </message>
    <message>
      <source>vLLM does not run {model_type} models in float16</source>
      <translation>vLLM 不以 float16 运行 {model_type} 模型</translation>
    </message>
    <message>
      <source>vLLM cannot make a quantization method of what the config files say</source>
      <translation>vLLM 无法从配置文件的内容得出量化方法</translation>
    </message>
    <message>
      <source>ModelOpt's quantization block must be an object</source>
      <translation>ModelOpt 的 quantization 块必须是对象</translation>
    </message>
    <message>
      <source>--kv-cache-dtype {dtype} does not exist in vLLM 0.33.0</source>
      <translation>vLLM 0.33.0 中没有 --kv-cache-dtype {dtype}</translation>
    </message>
    <message>
      <source>a {cache} cache needs a {cache} model, and this one runs in {dtype}</source>
      <translation>{cache} 的缓存需要 {cache} 的模型，而此模型以 {dtype} 运行</translation>
    </message>
    <message>
      <source>vLLM's method {method} cannot read this quantization config at {field}</source>
      <translation>vLLM 的方法 {method} 无法读取此量化配置的 {field}</translation>
    </message>
    <message>
      <source>vLLM's method {method} runs in {supported}, not in {dtype}</source>
      <translation>vLLM 的方法 {method} 以 {supported} 运行，不支持 {dtype}</translation>
    </message>
    <message>
      <source>MLA layers have no NVFP4 cache layout</source>
      <translation>MLA 层没有 NVFP4 缓存布局</translation>
    </message>
    <message>
      <source>vLLM cannot read the list of layers that are left unquantized, {field}</source>
      <translation>vLLM 无法读取不量化的层的列表 {field}</translation>
    </message>
    <message>
      <source>compressed-tensors needs kv_cache_scheme as an object</source>
      <translation>compressed-tensors 要求 kv_cache_scheme 为对象</translation>
    </message>
    <message>
      <source>vLLM keeps a compressed-tensors KV cache in 8-bit float only, and this scheme is {bits}-bit {kind}</source>
      <translation>vLLM 只以 8 位浮点保存 compressed-tensors 的 KV 缓存，而此方案为 {bits} 位 {kind}</translation>
    </message>
    <message>
      <source>no such quantization strategy</source>
      <translation>没有这样的量化策略</translation>
    </message>
    <message>
      <source>vLLM takes one KV scale per tensor or per head, not per {strategy}</source>
      <translation>vLLM 只接受逐张量或逐头的 KV 缩放因子，不接受按 {strategy} 的</translation>
    </message>
    <message>
      <source>vLLM has no zero points in the KV cache, and this scheme is asymmetric</source>
      <translation>vLLM 的 KV 缓存没有零点，而此方案是非对称的</translation>
    </message>
    <message>
      <source>vLLM keeps a Quark KV cache in fp8_e4m3 only, and this checkpoint declares {dtype}</source>
      <translation>vLLM 只以 fp8_e4m3 保存 Quark 的 KV 缓存，而此检查点声明了 {dtype}</translation>
    </message>
    <message>
      <source>vLLM takes one KV scale per tensor from Quark, not {qscheme}</source>
      <translation>对于 Quark，vLLM 每个张量只接受一个 KV 缩放因子，不接受 {qscheme}</translation>
    </message>
    <message>
      <source>Transformers cannot read a dtype that is a list</source>
      <translation>Transformers 无法读取写成列表的 dtype</translation>
    </message>
    <message>
      <source>{count:,} scale tensors</source>
      <translation>{count:,} 个缩放因子张量</translation>
    </message>
    <message>
      <source>{count:,} distinct mappers</source>
      <translation>{count:,} 个不同的映射器</translation>
    </message>
    <message>
      <source>{count:,} methods</source>
      <translation>{count:,} 种方法</translation>
    </message>
    <message>
      <source>{count:,} files</source>
      <translation>{count:,} 个文件</translation>
    </message>
    <message>
      <source>{count:,} KV-scale tensors</source>
      <translation>{count:,} 个 KV 缩放因子张量</translation>
    </message>
    <message>
      <source>{first}
{second}</source>
      <translation>{first}
{second}</translation>
    </message>
    <message>
      <source>, then </source>
      <translation>；随后：</translation>
    </message>
    <message>
      <source>{rule} gives {name}</source>
      <translation>{rule} 得到 {name}</translation>
    </message>
    <message>
      <source>{loader}'s {rule}</source>
      <translation>{loader} 的 {rule}</translation>
    </message>
    <message>
      <source>{rule} drops it</source>
      <translation>{rule} 将其丢弃</translation>
    </message>
    <message>
      <source>{engine}: {way}</source>
      <translation>{engine}：{way}</translation>
    </message>
    <message>
      <source>{parameter} takes it</source>
      <translation>{parameter} 接收它</translation>
    </message>
    <message>
      <source>that parameter takes it</source>
      <translation>该参数接收它</translation>
    </message>
    <message>
      <source>Its scales are amax / (6 x 448), for an NVFP4 cache; times 6 they are FP8 scales.</source>
      <translation>其缩放因子为 amax / (6 x 448)，用于 NVFP4 缓存；乘以 6 即为 FP8 缩放因子。</translation>
    </message>
    <message>
      <source>{place} is {value!r} and no number</source>
      <translation>{place} 为 {value!r}，不是数字</translation>
    </message>
    <message>
      <source>{place} is {value!r}, and a scale is a finite number above 0</source>
      <translation>{place} 为 {value!r}，而缩放因子是大于 0 的有限数</translation>
    </message>
    <message>
      <source>{place} {value!r} is no number</source>
      <translation>{place} {value!r} 不是数字</translation>
    </message>
    <message>
      <source>{place} is no JSON object</source>
      <translation>{place} 不是 JSON 对象</translation>
    </message>
    <message>
      <source>{place} is no list</source>
      <translation>{place} 不是列表</translation>
    </message>
    <message>
      <source>kv_cache.dtype is {dtype!r}, and only scales for float8_e4m3fn are known</source>
      <translation>kv_cache.dtype 为 {dtype!r}，而只认识 float8_e4m3fn 的缩放因子</translation>
    </message>
    <message>
      <source>the tensor-parallel rank</source>
      <translation>张量并行 rank</translation>
    </message>
    <message>
      <source>Its ranks are not plain numbers, which vLLM up to 0.6 refused.</source>
      <translation>其 rank 不是纯数字，vLLM 0.6 及更早版本会拒绝。</translation>
    </message>
    <message>
      <source>It holds {count} tensor-parallel ranks; the largest scale of each layer was taken.</source>
      <translation>它含 {count} 个张量并行 rank；每层取最大的缩放因子。</translation>
    </message>
    <message>
      <source>quant_type is {kind!r}, and only per_tensor and per_head are known</source>
      <translation>quant_type 为 {kind!r}，而只认识 per_tensor 和 per_head</translation>
    </message>
    <message>
      <source>scales_shape is {shape}, and scales are {layers} x {width}</source>
      <translation>scales_shape 为 {shape}，而 scales 为 {layers} x {width}</translation>
    </message>
    <message>
      <source>scale_policy is {policy!r}, and only amax-over-6x448 is known</source>
      <translation>scale_policy 为 {policy!r}，而只认识 amax-over-6x448</translation>
    </message>
    <message>
      <source>the layer</source>
      <translation>层号</translation>
    </message>
    <message>
      <source>The draft model's pool was left out.</source>
      <translation>草稿模型的池已略去。</translation>
    </message>
    <message>
      <source>Mode is {mode!r}, and only Scale and DynamicRange are known</source>
      <translation>Mode 为 {mode!r}，而只认识 Scale 和 DynamicRange</translation>
    </message>
    <message>
      <source>It holds amaxes, which were divided by 448.</source>
      <translation>它存的是 amax，已除以 448。</translation>
    </message>
    <message>
      <source>vLLM up to 0.6, SGLang, KsanaLLM: kv_cache_scales.json</source>
      <translation>vLLM（至 0.6）、SGLang、KsanaLLM：kv_cache_scales.json</translation>
    </message>
    <message>
      <source>scales[{layer}] holds {count} values and not {wanted}</source>
      <translation>scales[{layer}] 含 {count} 个值，而不是 {wanted} 个</translation>
    </message>
    <message>
      <source>pools.target.{role}_scale holds {count} values for {layers} layers</source>
      <translation>pools.target.{role}_scale 为 {layers} 层提供了 {count} 个值</translation>
    </message>
    <message>
      <source>Its scales are made for Gaudi, whose FP8 ends at 240: they are larger than FP8 needs.</source>
      <translation>其缩放因子为 Gaudi 生成，其 FP8 上限为 240：它们大于 FP8 所需。</translation>
    </message>
    <message>
      <source>pools.target.{role}_scale of layer {layer}</source>
      <translation>第 {layer} 层的 pools.target.{role}_scale</translation>
    </message>
    <message>
      <source>is no side file of KV-cache scales that is known here</source>
      <translation>不是已知格式的 KV 缓存缩放因子旁文件</translation>
    </message>
    <message>
      <source>an overlay</source>
      <translation>覆盖层</translation>
    </message>
    <message>
      <source>a checkpoint</source>
      <translation>检查点</translation>
    </message>
    <message>
      <source>holds no KV-cache scales ({format})</source>
      <translation>不含 KV 缓存缩放因子（{format}）</translation>
    </message>
    <message>
      <source>is the index of a checkpoint</source>
      <translation>是检查点的索引</translation>
    </message>
    <message>
      <source>describes tensors and holds no scales</source>
      <translation>只描述张量，不含缩放因子</translation>
    </message>
    <message>
      <source>{format} ({fields})</source>
      <translation>{format}（{fields}）</translation>
    </message>
    <message>
      <source>Known are {known}</source>
      <translation>已知的有：{known}</translation>
    </message>
    <message>
      <source>Choose the file that the calibration wrote</source>
      <translation>请选择校准写出的文件</translation>
    </message>
    <message>
      <source>Give the address of the folder that it lies in</source>
      <translation>请给出它所在文件夹的地址</translation>
    </message>
    <message>
      <source>Give the checkpoint that it belongs to</source>
      <translation>请给出它所属的检查点</translation>
    </message>
    <message>
      <source>It holds scales of an {number} cache (amax / {largest:g}), made FP8 scales (amax / 448).</source>
      <translation>它含 {number} 缓存的缩放因子（amax / {largest:g}），已换算为 FP8 缩放因子（amax / 448）。</translation>
    </message>
    <message>
      <source>{problem} ({format})</source>
      <translation>{problem}（{format}）</translation>
    </message>
    <message>
      <source>It holds global scales of an NVFP4 cache (amax / 2688), which were multiplied by 6.</source>
      <translation>它含 NVFP4 缓存的全局缩放因子（amax / 2688），已乘以 6。</translation>
    </message>
    <message>
      <source>Correct the file, or take the scales from elsewhere</source>
      <translation>请修正该文件，或从别处取得缩放因子</translation>
    </message>
    <message>
      <source>ignored</source>
      <translation>忽略</translation>
    </message>
    <message>
      <source>loaded</source>
      <translation>加载</translation>
    </message>
    <message>
      <source>{helper} would make {name} of it, but {loader}.load_weights never asks it</source>
      <translation>{helper} 会将其变为 {name}，但 {loader}.load_weights 从不询问它</translation>
    </message>
    <message>
      <source>after it, {layer} fails with {error}</source>
      <translation>此后 {layer} 因 {error} 失败</translation>
    </message>
    <message>
      <source>{layer} ends with {values}</source>
      <translation>{layer} 最终得到 {values}</translation>
    </message>
    <message>
      <source>and no such parameter exists, as the attention is built without the quantization config</source>
      <translation>而且由于构建注意力时未传入量化配置，并不存在这样的参数</translation>
    </message>
    <message>
      <source>it would have made {name}, which is the parameter</source>
      <translation>它本会得到 {name}，而这正是该参数</translation>
    </message>
    <message>
      <source>{method} has not</source>
      <translation>而 {method} 没有</translation>
    </message>
    <message>
      <source>nothing is declared here</source>
      <translation>而此处没有任何声明</translation>
    </message>
    <message>
      <source>A tensor of that name would be taken</source>
      <translation>以此命名的张量会被接收</translation>
    </message>
    <message>
      <source>The load stops here; {scales} {_are} not read.</source>
      <translation>加载在此停止；另有 {scales} 未读取。</translation>
    </message>
    <message>
      <source>A tensor of that name would end the load with {error}</source>
      <translation>以此命名的张量会以 {error} 终止加载</translation>
    </message>
    <message>
      <source>Even a tensor of that name would be {outcome}</source>
      <translation>即使以此命名的张量也会被 {outcome}</translation>
    </message>
    <message>
      <source>The load stops here.</source>
      <translation>加载在此停止。</translation>
    </message>
    <message>
      <source>The load goes on; {ends}.</source>
      <translation>加载继续；{ends}。</translation>
    </message>
    <message>
      <source>The load goes on.</source>
      <translation>加载继续。</translation>
    </message>
    <message>
      <source>{methods} {_have} the rule {rule}, {without}</source>
      <translation>{methods} 有规则 {rule}，{without}</translation>
    </message>
    <message>
      <source>{outcome}, renamed to {name}</source>
      <translation>{outcome}（改名为 {name}）</translation>
    </message>
    <message>
      <source>{values} and NaN</source>
      <translation>{values} 和 NaN</translation>
    </message>
    <message>
      <source>no numbered layer</source>
      <translation>无编号的层</translation>
    </message>
    <message>
      <source>{first} or {last}</source>
      <translation>{first} 或 {last}</translation>
    </message>
    <message>
      <source>an exception</source>
      <translation>一个异常</translation>
    </message>
    <message>
      <source>{count:,} checkpoints</source>
      <translation>{count:,} 个检查点</translation>
    </message>
    <message>
      <source>it reads a second config from the model folder</source>
      <translation>它从模型文件夹读取第二个配置</translation>
    </message>
    <message>
      <source>it can only be built where there is a GPU</source>
      <translation>只能在有 GPU 的机器上构建</translation>
    </message>
    <message>
      <source>the Transformers backend cannot build its image tokenizer without weights</source>
      <translation>没有权重时，Transformers 后端无法构建其图像分词器</translation>
    </message>
    <message>
      <source>it has no weights</source>
      <translation>它没有权重</translation>
    </message>
    <message>
      <source>it can only be built where there is a GPU, and with a KV cache that is not quantized</source>
      <translation>只能在有 GPU 的机器上、以未量化的 KV 缓存构建</translation>
    </message>
    <message>
      <source>no checkpoint names it: vLLM gives that name to the draft model of Gemma 4</source>
      <translation>没有检查点写明它：vLLM 以此名称称呼 Gemma 4 的草稿模型</translation>
    </message>
    <message>
      <source>no small draft model of it was made</source>
      <translation>未制作其小型草稿模型</translation>
    </message>
    <message>
      <source>transformers reads its config otherwise than vLLM</source>
      <translation>transformers 读取其配置的方式与 vLLM 不同</translation>
    </message>
    <message>
      <source>no checkpoint names it: vLLM gives that name to the draft layers of a whole model</source>
      <translation>没有检查点写明它：vLLM 以此名称称呼完整模型的草稿层</translation>
    </message>
    <message>
      <source>no small model of it was made</source>
      <translation>未制作其小型模型</translation>
    </message>
    <message>
      <source>it wraps any model of another library</source>
      <translation>它可包装另一个库的任意模型</translation>
    </message>
    <message>
      <source>no small model that the Transformers backend takes for it</source>
      <translation>没有 Transformers 后端可作为它接受的小型模型</translation>
    </message>
    <message>
      <source>its hybrid layers share their attention blocks in turn</source>
      <translation>其混合层轮流共用注意力块</translation>
    </message>
  </context>
  <context>
    <name>Coverage</name>
    <message>
      <source>Coverage</source>
      <translation>覆盖</translation>
    </message>
    <message>
      <source>No attention layer is known for this checkpoint, and it holds no KV scale.</source>
      <translation>此检查点没有已知的注意力层，也不含 KV 缩放因子。</translation>
    </message>
    <message>
      <source>Show only {status}</source>
      <translation>只显示“{status}”</translation>
    </message>
  </context>
  <context>
    <name>Detail</name>
    <message>
      <source>The problem in full</source>
      <translation>问题详情</translation>
    </message>
    <message>
      <source>Evidence</source>
      <translation>证据</translation>
    </message>
    <message>
      <source>Consequence</source>
      <translation>后果</translation>
    </message>
    <message>
      <source>Fix</source>
      <translation>修复</translation>
    </message>
    <message>
      <source>Scope</source>
      <translation>范围</translation>
    </message>
    <message>
      <source>Source</source>
      <translation>来源</translation>
    </message>
    <message>
      <source>Apply as filter</source>
      <translation>用作筛选</translation>
    </message>
    <message>
      <source>Select its rows</source>
      <translation>选中相关行</translation>
    </message>
    <message>
      <source>Fix by export</source>
      <translation>通过导出修复</translation>
    </message>
    <message>
      <source>{count} key</source>
      <translation>{count} 个键</translation>
    </message>
    <message>
      <source>{count} keys</source>
      <translation>{count} 个键</translation>
    </message>
    <message>
      <source>the whole checkpoint</source>
      <translation>整个检查点</translation>
    </message>
    <message>
      <source>layer {layers}</source>
      <translation>第 {layers} 层</translation>
    </message>
    <message>
      <source>layers {layers}</source>
      <translation>第 {layers} 层</translation>
    </message>
    <message>
      <source>{keys}, {layers}</source>
      <translation>{keys}，{layers}</translation>
    </message>
  </context>
  <context>
    <name>Documents</name>
    <message>
      <source>Open checkpoints</source>
      <translation>打开的检查点</translation>
    </message>
  </context>
  <context>
    <name>DropZone</name>
    <message>
      <source>Drop a checkpoint here</source>
      <translation>将检查点拖放到这里</translation>
    </message>
    <message>
      <source>a model folder, a .safetensors shard or its index, a PyTorch file</source>
      <translation>模型文件夹、.safetensors 分片或其索引、PyTorch 文件</translation>
    </message>
  </context>
  <context>
    <name>EngineDetail</name>
    <message>
      <source>Keys under two engines</source>
      <translation>两个引擎下的键</translation>
    </message>
    <message>
      <source>Choose another engine to see, key by key, where the two part.</source>
      <translation>选择另一个引擎，逐键查看两者的分歧之处。</translation>
    </message>
    <message>
      <source>Use</source>
      <translation>使用</translation>
    </message>
    <message>
      <source>Predict with this engine (Return)</source>
      <translation>用此引擎预测(回车)</translation>
    </message>
    <message>
      <source>Verdict in this engine</source>
      <translation>在此引擎中的结论</translation>
    </message>
    <message>
      <source>Differences from the built-in profile</source>
      <translation>与内置配置的差异</translation>
    </message>
    <message>
      <source>Why they differ</source>
      <translation>不同的原因</translation>
    </message>
    <message>
      <source>Use {engine}</source>
      <translation>使用 {engine}</translation>
    </message>
    <message>
      <source>Mended by {mend}.</source>
      <translation>可用 {mend} 修复。</translation>
    </message>
    <message>
      <source>Every key ends alike in both.</source>
      <translation>每个键在两者中的结果都相同。</translation>
    </message>
    <message>
      <source>{differing} of {count} keys end differently.
{why}</source>
      <translation>{count} 个键中有 {differing} 个结果不同。
{why}</translation>
    </message>
  </context>
  <context>
    <name>Engines</name>
    <message>
      <source>Engine</source>
      <translation>引擎</translation>
    </message>
    <message>
      <source>Outcome</source>
      <translation>结果</translation>
    </message>
    <message>
      <source>Layers</source>
      <translation>层</translation>
    </message>
    <message>
      <source>What it does</source>
      <translation>它做什么</translation>
    </message>
    <message>
      <source>{served} of {expecting}</source>
      <translation>{served} / {expecting}</translation>
    </message>
    <message>
      <source>In force</source>
      <translation>当前生效</translation>
    </message>
    <message>
      <source>Mended by {mend}</source>
      <translation>可用 {mend} 修复</translation>
    </message>
    <message>
      <source>{engine}, in force</source>
      <translation>{engine}，当前生效</translation>
    </message>
    <message>
      <source>an export ({count} of {all} layers are served then)</source>
      <translation>导出(之后 {all} 层中有 {count} 层得到满足)</translation>
    </message>
    <message>
      <source>--kv-cache-dtype fp8_e4m3</source>
      <translation>--kv-cache-dtype fp8_e4m3</translation>
    </message>
    <message>
      <source>Checkpoint key</source>
      <translation>检查点中的键</translation>
    </message>
  </context>
  <context>
    <name>EnginesPanel</name>
    <message>
      <source>All engines in a sentence</source>
      <translation>一句话概括所有引擎</translation>
    </message>
    <message>
      <source>Engines</source>
      <translation>引擎</translation>
    </message>
    <message>
      <source>Open a checkpoint to compare engines on it.</source>
      <translation>打开检查点以比较各引擎。</translation>
    </message>
    <message>
      <source>Predicting every engine …</source>
      <translation>正在预测每个引擎…</translation>
    </message>
    <message>
      <source>Predicting every engine</source>
      <translation>正在预测每个引擎</translation>
    </message>
    <message>
      <source>Cancelled. Show this tab again to retry.</source>
      <translation>已取消。再次打开此标签页即可重试。</translation>
    </message>
  </context>
  <context>
    <name>ErrorCanvas</name>
    <message>
      <source>Plot of errors</source>
      <translation>误差图表</translation>
    </message>
    <message>
      <source>relative error</source>
      <translation>相对误差</translation>
    </message>
    <message>
      <source>layer</source>
      <translation>层</translation>
    </message>
  </context>
  <context>
    <name>Errors</name>
    <message>
      <source>scales received</source>
      <translation>收到的缩放因子</translation>
    </message>
    <message>
      <source>at 1.0</source>
      <translation>为 1.0 时</translation>
    </message>
    <message>
      <source>k and v exchanged</source>
      <translation>k 与 v 互换</translation>
    </message>
    <message>
      <source>fitted to the data</source>
      <translation>按数据拟合</translation>
    </message>
  </context>
  <context>
    <name>ExportPanel</name>
    <message>
      <source>Change</source>
      <translation>变化</translation>
    </message>
    <message>
      <source>Before</source>
      <translation>之前</translation>
    </message>
    <message>
      <source>→ After</source>
      <translation>→ 之后</translation>
    </message>
    <message>
      <source>Stored as</source>
      <translation>存储为</translation>
    </message>
    <message>
      <source>Why</source>
      <translation>原因</translation>
    </message>
    <message>
      <source>What the export changes</source>
      <translation>导出会改变什么</translation>
    </message>
    <message>
      <source>Plan again</source>
      <translation>重新规划</translation>
    </message>
    <message>
      <source>Open a checkpoint to see what an export would change.</source>
      <translation>打开检查点以查看导出会改变什么。</translation>
    </message>
    <message>
      <source>Planning the export …</source>
      <translation>正在规划导出…</translation>
    </message>
    <message>
      <source>planning the export</source>
      <translation>正在规划导出</translation>
    </message>
    <message>
      <source>Planning the export</source>
      <translation>正在规划导出</translation>
    </message>
    <message>
      <source>{folder}: no such user</source>
      <translation>{folder}：没有这个用户</translation>
    </message>
    <message>
      <source>Writing {folder} …</source>
      <translation>正在写入 {folder}…</translation>
    </message>
    <message>
      <source>Exporting to {folder}</source>
      <translation>正在导出到 {folder}</translation>
    </message>
    <message>
      <source>What {engine} takes</source>
      <translation>{engine} 所接受的形式</translation>
    </message>
    <message>
      <source>Convention: {engine}</source>
      <translation>约定：{engine}</translation>
    </message>
    <message>
      <source>Cancelled.</source>
      <translation>已取消。</translation>
    </message>
    <message>
      <source>Written to {folder}: {size} in {seconds:.1f} s, {count} tensors compared with the source.</source>
      <translation>已写入 {folder}:{size}，用时 {seconds:.1f} 秒，{count} 个张量已与源比较。</translation>
    </message>
    <message>
      <source>Written to {folder}: {size} in {seconds:.1f} s. Put it beside the shards of {address}.</source>
      <translation>已写入 {folder}：{size}，用时 {seconds:.1f} 秒。请把它放到 {address} 的分片旁边。</translation>
    </message>
    <message>
      <source>Cancelled; nothing was left behind.</source>
      <translation>已取消；没有留下任何文件。</translation>
    </message>
    <message>
      <source>target {target}</source>
      <translation>目标 {target}</translation>
    </message>
    <message>
      <source>without {code}</source>
      <translation>不做 {code}</translation>
    </message>
    <message>
      <source>Take the scales from</source>
      <translation>取缩放因子自</translation>
    </message>
    <message>
      <source>Scales (*.json *.safetensors);;All files (*)</source>
      <translation>缩放因子 (*.json *.safetensors);;所有文件 (*)</translation>
    </message>
    <message>
      <source>scales from a file</source>
      <translation>来自文件的缩放因子</translation>
    </message>
    <message>
      <source>Choose an empty folder</source>
      <translation>选择一个空文件夹</translation>
    </message>
  </context>
  <context>
    <name>ExportSheet</name>
    <message>
      <source>kept</source>
      <translation>保留</translation>
    </message>
    <message>
      <source>renamed</source>
      <translation>改名</translation>
    </message>
    <message>
      <source>reshaped</source>
      <translation>形状改变</translation>
    </message>
    <message>
      <source>duplicated</source>
      <translation>复制</translation>
    </message>
    <message>
      <source>dropped</source>
      <translation>丢弃</translation>
    </message>
    <message>
      <source>added</source>
      <translation>新增</translation>
    </message>
    <message>
      <source>repaired</source>
      <translation>修复</translation>
    </message>
    <message>
      <source>What the copy is for</source>
      <translation>副本的用途</translation>
    </message>
    <message>
      <source>The engine above: what it takes, changing least</source>
      <translation>上面的引擎：它所接受的形式，改动最少</translation>
    </message>
    <message>
      <source>Names as they are</source>
      <translation>保持原有名称</translation>
    </message>
    <message>
      <source>New folder</source>
      <translation>新文件夹</translation>
    </message>
    <message>
      <source>Browse…</source>
      <translation>浏览…</translation>
    </message>
    <message>
      <source>How unchanged bytes are written</source>
      <translation>未改变的字节如何写入</translation>
    </message>
    <message>
      <source>Cloned where the disk can, else copied</source>
      <translation>磁盘支持时克隆，否则复制</translation>
    </message>
    <message>
      <source>Hard links of unchanged shards</source>
      <translation>为未改变的分片建硬链接</translation>
    </message>
    <message>
      <source>Cloned, or refused</source>
      <translation>克隆，否则拒绝</translation>
    </message>
    <message>
      <source>Copied</source>
      <translation>复制</translation>
    </message>
    <message>
      <source>Overlay: a small shard added, the others left as they are</source>
      <translation>覆盖层：添加一个小分片，其余分片保持不变</translation>
    </message>
    <message>
      <source>This checkpoint is not on this machine, and a copy would download all of it. An overlay fetches no shard: it is a small one and an index, to be put beside the shards or uploaded there. For a copy, download the checkpoint first and open that folder.</source>
      <translation>此检查点不在本机上，复制它需要全部下载。覆盖层不下载任何分片：它是一个小分片和一个索引，放到原有分片旁边或上传到那里即可。如需副本，请先下载检查点并打开该文件夹。</translation>
    </message>
    <message>
      <source>Write</source>
      <translation>写出</translation>
    </message>
    <message>
      <source>Open the result</source>
      <translation>打开结果</translation>
    </message>
    <message>
      <source>Undo</source>
      <translation>撤销</translation>
    </message>
    <message>
      <source>Redo</source>
      <translation>重做</translation>
    </message>
    <message>
      <source>Take scales from…</source>
      <translation>取缩放因子自…</translation>
    </message>
    <message>
      <source>For</source>
      <translation>用于</translation>
    </message>
    <message>
      <source>Written</source>
      <translation>写入方式</translation>
    </message>
    <message>
      <source>Repairs</source>
      <translation>修复</translation>
    </message>
    <message>
      <source>A copy would download the whole checkpoint.</source>
      <translation>复制需要下载整个检查点。</translation>
    </message>
    <message>
      <source>Scales from {path}</source>
      <translation>来自 {path} 的缩放因子</translation>
    </message>
    <message>
      <source>{changes}; names: {names}.</source>
      <translation>{changes}；名称：{names}。</translation>
    </message>
    <message>
      <source>{changes}; names: {names}. Needs {space}.</source>
      <translation>{changes}；名称：{names}。需要 {space}。</translation>
    </message>
    <message>
      <source>no scale changes</source>
      <translation>没有缩放因子改变</translation>
    </message>
    <message>
      <source>as they are</source>
      <translation>保持原样</translation>
    </message>
    <message>
      <source>{file} changes</source>
      <translation>{file} 会改变</translation>
    </message>
    <message>
      <source>Judged with --kv-cache-dtype {dtype}, under which the scales are used.</source>
      <translation>按 --kv-cache-dtype {dtype} 判断，此时缩放因子会被使用。</translation>
    </message>
    <message>
      <source>{count} keys stay unreachable</source>
      <translation>{count} 个键仍无法到达</translation>
    </message>
    <message>
      <source>Copied as they are</source>
      <translation>原样复制</translation>
    </message>
    <message>
      <source>Before</source>
      <translation>之前</translation>
    </message>
    <message>
      <source>After</source>
      <translation>之后</translation>
    </message>
    <message>
      <source>Predicted</source>
      <translation>预测</translation>
    </message>
  </context>
  <context>
    <name>ForwardView</name>
    <message>
      <source>What the scales cost</source>
      <translation>缩放因子的代价</translation>
    </message>
    <message>
      <source>- -  rounding alone</source>
      <translation>- -  仅舍入</translation>
    </message>
    <message>
      <source>Tick “Run the attention too” to see what the scales cost: the error of each layer's attention output with the scales received, with 1.0, and with k and v exchanged.</source>
      <translation>勾选“同时运行注意力”以查看缩放因子的代价：每层注意力输出在使用收到的缩放因子、使用 1.0、以及 k 与 v 互换时的误差。</translation>
    </message>
    <message>
      <source>Keys and values: {words} ({tokens} tokens, {format}, seed {seed})</source>
      <translation>键与值：{words}({tokens} 个 token,{format}，种子 {seed})</translation>
    </message>
  </context>
  <context>
    <name>GpuPanel</name>
    <message>
      <source>Ranks</source>
      <translation>Rank 数</translation>
    </message>
    <message>
      <source>Device</source>
      <translation>设备</translation>
    </message>
    <message>
      <source>looking for devices …</source>
      <translation>正在查找设备…</translation>
    </message>
    <message>
      <source>Run the loader</source>
      <translation>运行加载器</translation>
    </message>
    <message>
      <source>Cancel</source>
      <translation>取消</translation>
    </message>
    <message>
      <source>Load every tensor, not the scales alone</source>
      <translation>加载每个张量，而不只是缩放因子</translation>
    </message>
    <message>
      <source>The whole model must fit on the device; each tensor is compared bit for bit</source>
      <translation>整个模型必须能放入设备；每个张量逐位比较</translation>
    </message>
    <message>
      <source>Run the attention too</source>
      <translation>同时运行注意力</translation>
    </message>
    <message>
      <source>Writes keys and values to a paged float8 cache and measures what the scales cost the output</source>
      <translation>将键和值写入分页的 float8 缓存，并测量缩放因子给输出带来的代价</translation>
    </message>
    <message>
      <source>with the checkpoint's projections</source>
      <translation>使用检查点的投影</translation>
    </message>
    <message>
      <source>Keys and values from the layers' own weights, where PyTorch can read them; drawn otherwise</source>
      <translation>在 PyTorch 能读取时，键和值由各层自身的权重得出；否则随机生成</translation>
    </message>
    <message>
      <source>Tensor-parallel ranks</source>
      <translation>张量并行 rank 数</translation>
    </message>
    <message>
      <source>Each rank is a process of its own, with CUDA on a GPU of its own</source>
      <translation>每个 rank 是独立的进程，使用 CUDA 时各占一块 GPU</translation>
    </message>
    <message>
      <source>Why CUDA cannot be used here</source>
      <translation>此处无法使用 CUDA 的原因</translation>
    </message>
    <message>
      <source>Command for a machine with a GPU</source>
      <translation>用于有 GPU 的机器的命令</translation>
    </message>
    <message>
      <source>Copy command</source>
      <translation>复制命令</translation>
    </message>
    <message>
      <source>Step</source>
      <translation>步骤</translation>
    </message>
    <message>
      <source>Time</source>
      <translation>用时</translation>
    </message>
    <message>
      <source>What it did</source>
      <translation>做了什么</translation>
    </message>
    <message>
      <source>Steps</source>
      <translation>步骤</translation>
    </message>
    <message>
      <source>Results of the run</source>
      <translation>运行结果</translation>
    </message>
    <message>
      <source>Values</source>
      <translation>值</translation>
    </message>
    <message>
      <source>Attention</source>
      <translation>注意力</translation>
    </message>
    <message>
      <source>importing PyTorch</source>
      <translation>正在导入 PyTorch</translation>
    </message>
    <message>
      <source>Looking for devices</source>
      <translation>正在查找设备</translation>
    </message>
    <message>
      <source>Running the loader on {device}</source>
      <translation>正在 {device} 上运行加载器</translation>
    </message>
    <message>
      <source>no device</source>
      <translation>没有设备</translation>
    </message>
    <message>
      <source>Cancelled. Run it again when you like.</source>
      <translation>已取消。可随时再次运行。</translation>
    </message>
    <message>
      <source>CUDA cannot be used here: {reason}. On a machine with a GPU, run:</source>
      <translation>此处无法使用 CUDA:{reason}。请在有 GPU 的机器上运行：</translation>
    </message>
    <message>
      <source>The loader runs …</source>
      <translation>加载器正在运行…</translation>
    </message>
    <message>
      <source>Runs the unified loader on the scales and compares, layer by layer, what the attention layers hold with what was predicted. PREDICTED becomes OBSERVED.</source>
      <translation>对缩放因子运行统一加载器，并逐层比较注意力层实际持有的值与预测值。“预测”将变为“实测”。</translation>
    </message>
    <message>
      <source>OBSERVED</source>
      <translation>实测</translation>
    </message>
    <message>
      <source>CONTRADICTED</source>
      <translation>不符</translation>
    </message>
    <message>
      <source>NOT RUN</source>
      <translation>未运行</translation>
    </message>
    <message>
      <source>AGREES</source>
      <translation>一致</translation>
    </message>
    <message>
      <source>The loader that KVScope runs is that of {default}, not of {engine}: choose it to verify.</source>
      <translation>KVScope 运行的是 {default} 的加载器，而不是 {engine} 的：请选择它来验证。</translation>
    </message>
  </context>
  <context>
    <name>Groups</name>
    <message>
      <source>{size}, {tensors} tensors, header {header}</source>
      <translation>{size},{tensors} 个张量，头部 {header}</translation>
    </message>
    <message>
      <source>… and {count} more; use the filter</source>
      <translation>… 还有 {count} 个；请使用筛选</translation>
    </message>
    <message>
      <source>Group</source>
      <translation>组</translation>
    </message>
    <message>
      <source>Grouping</source>
      <translation>正在分组</translation>
    </message>
  </context>
  <context>
    <name>GroupsPanel</name>
    <message>
      <source>Groups</source>
      <translation>分组</translation>
    </message>
    <message>
      <source>Patterns</source>
      <translation>模式</translation>
    </message>
    <message>
      <source>Modules</source>
      <translation>模块</translation>
    </message>
    <message>
      <source>Shards</source>
      <translation>分片</translation>
    </message>
    <message>
      <source>Group by {what}</source>
      <translation>按{what}分组</translation>
    </message>
    <message>
      <source>Grouping names</source>
      <translation>正在对名称分组</translation>
    </message>
  </context>
  <context>
    <name>Header</name>
    <message>
      <source>Engine</source>
      <translation>引擎</translation>
    </message>
    <message>
      <source>Backend</source>
      <translation>后端</translation>
    </message>
    <message>
      <source>Architecture</source>
      <translation>架构</translation>
    </message>
    <message>
      <source>KV cache dtype</source>
      <translation>KV 缓存类型</translation>
    </message>
    <message>
      <source>Model dtype</source>
      <translation>模型类型</translation>
    </message>
    <message>
      <source>Open</source>
      <translation>打开</translation>
    </message>
    <message>
      <source>Reload</source>
      <translation>重新载入</translation>
    </message>
    <message>
      <source>Verify on GPU</source>
      <translation>在 GPU 上验证</translation>
    </message>
    <message>
      <source>Export…</source>
      <translation>导出…</translation>
    </message>
    <message>
      <source>{engine} decides by the KV-cache dtype alone</source>
      <translation>{engine} 只按 KV 缓存数据类型决定</translation>
    </message>
  </context>
  <context>
    <name>HeldView</name>
    <message>
      <source>Layer</source>
      <translation>层</translation>
    </message>
    <message>
      <source>Attribute</source>
      <translation>属性</translation>
    </message>
    <message>
      <source>Expected</source>
      <translation>预期</translation>
    </message>
    <message>
      <source>Held</source>
      <translation>实际</translation>
    </message>
    <message>
      <source>Dtype</source>
      <translation>数据类型</translation>
    </message>
    <message>
      <source>Max. error</source>
      <translation>最大误差</translation>
    </message>
    <message>
      <source>Against</source>
      <translation>比较对象</translation>
    </message>
    <message>
      <source>Expected and held values</source>
      <translation>预期值与实际值</translation>
    </message>
    <message>
      <source>Differences only</source>
      <translation>仅显示差异</translation>
    </message>
    <message>
      <source>{count} values, {wrong} differ</source>
      <translation>{count} 个值，{wrong} 个不同</translation>
    </message>
    <message>
      <source>file</source>
      <translation>文件</translation>
    </message>
    <message>
      <source>prediction</source>
      <translation>预测</translation>
    </message>
    <message>
      <source>rank {rank}: {layer}</source>
      <translation>rank {rank}:{layer}</translation>
    </message>
    <message>
      <source>nothing</source>
      <translation>无</translation>
    </message>
  </context>
  <context>
    <name>Jobs</name>
    <message>
      <source>{job} stopped on an unexpected {error}: {text}</source>
      <translation>{job}因意外的 {error} 而停止：{text}</translation>
    </message>
    <message>
      <source>Its details belong into a report.</source>
      <translation>请将其详情写入问题报告。</translation>
    </message>
  </context>
  <context>
    <name>Keys</name>
    <message>
      <source>Status</source>
      <translation>状态</translation>
    </message>
    <message>
      <source>Layer</source>
      <translation>层</translation>
    </message>
    <message>
      <source>Role</source>
      <translation>角色</translation>
    </message>
    <message>
      <source>Checkpoint key</source>
      <translation>检查点中的键</translation>
    </message>
    <message>
      <source>→ Engine parameter</source>
      <translation>→ 引擎参数</translation>
    </message>
    <message>
      <source>Value</source>
      <translation>值</translation>
    </message>
    <message>
      <source>Dtype</source>
      <translation>数据类型</translation>
    </message>
    <message>
      <source>Shape</source>
      <translation>形状</translation>
    </message>
    <message>
      <source>Convention</source>
      <translation>约定</translation>
    </message>
    <message>
      <source>What becomes of the tensor in the chosen engine</source>
      <translation>此张量在所选引擎中的结局</translation>
    </message>
    <message>
      <source>The parameter it reaches, else the name the engine looked for last</source>
      <translation>它到达的参数，否则为引擎最后查找的名称</translation>
    </message>
    <message>
      <source>The stored number; smallest and largest of several</source>
      <translation>存储的数值；多个值时为最小与最大</translation>
    </message>
    <message>
      <source>The way of naming and storing scales that the key follows</source>
      <translation>此键所遵循的命名与存储约定</translation>
    </message>
    <message>
      <source>scale</source>
      <translation>缩放因子</translation>
    </message>
    <message>
      <source>zero point</source>
      <translation>零点</translation>
    </message>
    <message>
      <source>bias</source>
      <translation>偏置</translation>
    </message>
    <message>
      <source>no tensor</source>
      <translation>没有张量</translation>
    </message>
    <message>
      <source>{name}: no parameter has this name</source>
      <translation>{name}：没有此名称的参数</translation>
    </message>
  </context>
  <context>
    <name>KeysPanel</name>
    <message>
      <source>Keys</source>
      <translation>键</translation>
    </message>
    <message>
      <source>Clear filter</source>
      <translation>清除筛选</translation>
    </message>
    <message>
      <source>Choose columns</source>
      <translation>选择列</translation>
    </message>
    <message>
      <source>Filter: words, layer:3-7, role:k, status:dropped, value:&gt;0.5 …</source>
      <translation>筛选：词语、layer:3-7、role:k、status:dropped、value:&gt;0.5 …</translation>
    </message>
    <message>
      <source>Filter keys</source>
      <translation>筛选键</translation>
    </message>
    <message>
      <source>Terms are AND-ed; a minus turns one round; commas mean or.
Fields: {fields}
Examples: k_proj -layer:0   value:&gt;0.5   shape:8x1x1   status:dropped,missing   "two words"</source>
      <translation>各条件须同时满足；减号表示取反；逗号表示“或”。
字段：{fields}
示例：k_proj -layer:0   value:&gt;0.5   shape:8x1x1   status:dropped,missing   "two words"</translation>
    </message>
    <message>
      <source>listing all tensors</source>
      <translation>正在列出所有张量</translation>
    </message>
    <message>
      <source>Listing all tensors</source>
      <translation>正在列出所有张量</translation>
    </message>
    <message>
      <source>{field}: is not a field; there are {fields}</source>
      <translation>{field}: 不是字段；可用字段：{fields}</translation>
    </message>
    <message>
      <source>{term} is not understood; try {first} or {second}</source>
      <translation>无法理解 {term}；请试试 {first} 或 {second}</translation>
    </message>
    <message>
      <source>tensors</source>
      <translation>个张量</translation>
    </message>
    <message>
      <source>rows</source>
      <translation>行</translation>
    </message>
    <message>
      <source>scales</source>
      <translation>个缩放因子</translation>
    </message>
    <message>
      <source>{shown} of {total} {what}</source>
      <translation>{total} {what}中的 {shown}</translation>
    </message>
    <message>
      <source>{scales} scales, {missing} missing</source>
      <translation>{scales} 个缩放因子，{missing} 个缺失</translation>
    </message>
    <message>
      <source>No row matches the filter.</source>
      <translation>没有符合筛选的行。</translation>
    </message>
    <message>
      <source>This checkpoint holds no KV-cache scale. View &gt; All Tensors lists what it does hold.</source>
      <translation>此检查点不含 KV 缓存缩放因子。“视图 &gt; 所有张量”可列出其中的内容。</translation>
    </message>
  </context>
  <context>
    <name>LogPanel</name>
    <message>
      <source>Log</source>
      <translation>日志</translation>
    </message>
    <message>
      <source>Nothing to report. Warnings and faults of KVScope itself are written here.</source>
      <translation>暂无记录。KVScope 自身的警告和故障会写在这里。</translation>
    </message>
    <message>
      <source>Copy all</source>
      <translation>全部复制</translation>
    </message>
    <message>
      <source>Clear</source>
      <translation>清空</translation>
    </message>
  </context>
  <context>
    <name>Menus</name>
    <message>
      <source>Automatic</source>
      <translation>自动</translation>
    </message>
  </context>
  <context>
    <name>Picker</name>
    <message>
      <source>Automatic</source>
      <translation>自动</translation>
    </message>
    <message>
      <source>not known</source>
      <translation>未知</translation>
    </message>
    <message>
      <source>Auto: {value}</source>
      <translation>自动：{value}</translation>
    </message>
  </context>
  <context>
    <name>Pickers</name>
    <message>
      <source>chosen</source>
      <translation>手动选择</translation>
    </message>
    <message>
      <source>from config</source>
      <translation>来自配置</translation>
    </message>
    <message>
      <source>from tensors</source>
      <translation>来自张量</translation>
    </message>
    <message>
      <source>default</source>
      <translation>默认</translation>
    </message>
    <message>
      <source>unknown</source>
      <translation>未知</translation>
    </message>
  </context>
  <context>
    <name>PlotPanel</name>
    <message>
      <source>What is plotted</source>
      <translation>绘制内容</translation>
    </message>
    <message>
      <source>drag: select · wheel: zoom · double click: all</source>
      <translation>拖动：选择 · 滚轮：缩放 · 双击：全部</translation>
    </message>
    <message>
      <source>Save the plot as {kind}</source>
      <translation>将图表存为 {kind}</translation>
    </message>
    <message>
      <source>hollow, dashed: {name}</source>
      <translation>空心、虚线：{name}</translation>
    </message>
    <message>
      <source>could not be written</source>
      <translation>无法写入</translation>
    </message>
    <message>
      <source>Choose another folder.</source>
      <translation>请选择其他文件夹。</translation>
    </message>
    <message>
      <source>Open a checkpoint to plot its scales.</source>
      <translation>打开检查点以绘制其缩放因子。</translation>
    </message>
    <message>
      <source>There is no scale value to plot.</source>
      <translation>没有可绘制的缩放因子。</translation>
    </message>
    <message>
      <source>Preparing the plot …</source>
      <translation>正在准备图表…</translation>
    </message>
    <message>
      <source>Scales by layer</source>
      <translation>各层的缩放因子</translation>
    </message>
    <message>
      <source>Heads of {role}</source>
      <translation>{role} 的各头</translation>
    </message>
    <message>
      <source>Show {role}</source>
      <translation>显示 {role}</translation>
    </message>
    <message>
      <source>PNG image (*.png)</source>
      <translation>PNG 图像 (*.png)</translation>
    </message>
    <message>
      <source>SVG drawing (*.svg)</source>
      <translation>SVG 图形 (*.svg)</translation>
    </message>
    <message>
      <source>CSV table (*.csv)</source>
      <translation>CSV 表格 (*.csv)</translation>
    </message>
    <message>
      <source>Save the plot</source>
      <translation>保存图表</translation>
    </message>
    <message>
      <source>Not saved: {error}</source>
      <translation>未保存：{error}</translation>
    </message>
  </context>
  <context>
    <name>Preferences</name>
    <message>
      <source>Settings</source>
      <translation>设置</translation>
    </message>
    <message>
      <source>Theme</source>
      <translation>主题</translation>
    </message>
    <message>
      <source>As the system</source>
      <translation>跟随系统</translation>
    </message>
    <message>
      <source>Light</source>
      <translation>浅色</translation>
    </message>
    <message>
      <source>Dark</source>
      <translation>深色</translation>
    </message>
    <message>
      <source>Language</source>
      <translation>语言</translation>
    </message>
    <message>
      <source>Engine to begin with</source>
      <translation>默认引擎</translation>
    </message>
    <message>
      <source>Open the checkpoints of the last run again</source>
      <translation>重新打开上次运行时的检查点</translation>
    </message>
    <message>
      <source>Another language is spoken from the next start on.</source>
      <translation>更改语言后，下次启动时生效。</translation>
    </message>
    <message>
      <source>Limits of the rules</source>
      <translation>规则的界限</translation>
    </message>
  </context>
  <context>
    <name>Problems</name>
    <message>
      <source>Severity</source>
      <translation>严重程度</translation>
    </message>
    <message>
      <source>Problem</source>
      <translation>问题</translation>
    </message>
    <message>
      <source>Count</source>
      <translation>数量</translation>
    </message>
    <message>
      <source>Layers</source>
      <translation>层</translation>
    </message>
    <message>
      <source>Code</source>
      <translation>代码</translation>
    </message>
    <message>
      <source>error</source>
      <translation>错误</translation>
    </message>
    <message>
      <source>warning</source>
      <translation>警告</translation>
    </message>
    <message>
      <source>info</source>
      <translation>提示</translation>
    </message>
  </context>
  <context>
    <name>ProblemsPanel</name>
    <message>
      <source>Problems</source>
      <translation>问题</translation>
    </message>
    <message>
      <source>No rule found anything wrong. That proves nothing by itself: the prediction does not run the engine.</source>
      <translation>没有规则发现问题。但这本身并不能证明什么：预测并未运行引擎。</translation>
    </message>
  </context>
  <context>
    <name>RatioStrip</name>
    <message>
      <source>Ratio of the values by layer</source>
      <translation>各层数值的比值</translation>
    </message>
    <message>
      <source>{beyond} of {count} scales differ by more than {noise}</source>
      <translation>{count} 个缩放因子中有 {beyond} 个相差超过 {noise}</translation>
    </message>
    <message>
      <source>No ratio to draw: no scale is on both sides with as many values there, none of them a zero or NaN.</source>
      <translation>没有可绘制的比值：没有哪个缩放因子在两边都存在、数值个数相同且不含零或 NaN。</translation>
    </message>
    <message>
      <source>B / A by layer; band: calibration noise of {noise}</source>
      <translation>各层 B / A；色带：{noise} 的校准噪声</translation>
    </message>
  </context>
  <context>
    <name>RepairRow</name>
    <message>
      <source>How: {title}</source>
      <translation>方式：{title}</translation>
    </message>
    <message>
      <source>Value: {title}</source>
      <translation>值：{title}</translation>
    </message>
    <message>
      <source>Browse…</source>
      <translation>浏览…</translation>
    </message>
    <message>
      <source>Take the scales from</source>
      <translation>取缩放因子自</translation>
    </message>
    <message>
      <source>Scales (*.json *.safetensors);;All files (*)</source>
      <translation>缩放因子 (*.json *.safetensors);;所有文件 (*)</translation>
    </message>
  </context>
  <context>
    <name>Repairs</name>
    <message>
      <source>One scale for each layer in place of one for each head</source>
      <translation>每层一个缩放因子，取代每个头一个</translation>
    </message>
    <message>
      <source>Multiply every k and v scale</source>
      <translation>将每个 k 和 v 缩放因子乘以一个数</translation>
    </message>
    <message>
      <source>Exchange k and v in every layer</source>
      <translation>在每层交换 k 与 v</translation>
    </message>
    <message>
      <source>Leave out what quantizers left behind</source>
      <translation>去掉量化工具遗留的内容</translation>
    </message>
    <message>
      <source>Declare the quantized KV cache in config.json</source>
      <translation>在 config.json 中声明量化的 KV 缓存</translation>
    </message>
  </context>
  <context>
    <name>RulesEditor</name>
    <message>
      <source>Rules run in the order of their kinds, as the engine runs them. The command line takes this file with --rules.</source>
      <translation>规则按种类的顺序运行，与引擎一致。命令行用 --rules 读取此文件。</translation>
    </message>
    <message>
      <source>the built-in method whose KV method takes the scales</source>
      <translation>其 KV 方法接收缩放因子的内置方法</translation>
    </message>
    <message>
      <source>renaming, regex, substr, stacked, prefix or suffix</source>
      <translation>renaming、regex、substr、stacked、prefix 或 suffix</translation>
    </message>
    <message>
      <source>Renaming rules</source>
      <translation>改名规则</translation>
    </message>
    <message>
      <source>Rules as TOML</source>
      <translation>TOML 格式的规则</translation>
    </message>
    <message>
      <source>Status</source>
      <translation>状态</translation>
    </message>
    <message>
      <source>Checkpoint key</source>
      <translation>检查点中的键</translation>
    </message>
    <message>
      <source>→ Engine parameter</source>
      <translation>→ 引擎参数</translation>
    </message>
    <message>
      <source>What the rules make of the keys</source>
      <translation>规则对各键的作用</translation>
    </message>
    <message>
      <source>Open…</source>
      <translation>打开…</translation>
    </message>
    <message>
      <source>Save as…</source>
      <translation>另存为…</translation>
    </message>
    <message>
      <source>Use</source>
      <translation>使用</translation>
    </message>
    <message>
      <source>Predict with these rules, once saved</source>
      <translation>保存后用这些规则预测</translation>
    </message>
    <message>
      <source>Without rules</source>
      <translation>不用规则</translation>
    </message>
    <message>
      <source>Predict without rules again</source>
      <translation>恢复为不用规则的预测</translation>
    </message>
    <message>
      <source>Close</source>
      <translation>关闭</translation>
    </message>
    <message>
      <source>Trying the rules</source>
      <translation>正在试用规则</translation>
    </message>
    <message>
      <source>no tensor</source>
      <translation>没有张量</translation>
    </message>
    <message>
      <source>Mistaken</source>
      <translation>有误</translation>
    </message>
    <message>
      <source>{path} was not read: {error}</source>
      <translation>未能读取 {path}:{error}</translation>
    </message>
    <message>
      <source>Renaming rules: {name}</source>
      <translation>改名规则：{name}</translation>
    </message>
    <message>
      <source>{path} was not written: {error}</source>
      <translation>未能写入 {path}:{error}</translation>
    </message>
    <message>
      <source>Open rules</source>
      <translation>打开规则</translation>
    </message>
    <message>
      <source>Rules (*.toml)</source>
      <translation>规则 (*.toml)</translation>
    </message>
    <message>
      <source>Save rules</source>
      <translation>保存规则</translation>
    </message>
    <message>
      <source>trying the rules</source>
      <translation>正在试用规则</translation>
    </message>
  </context>
  <context>
    <name>Samples</name>
    <message>
      <source>Qwen3, 36 layers, FP8 by ModelOpt</source>
      <translation>Qwen3,36 层，ModelOpt 生成的 FP8</translation>
    </message>
    <message>
      <source>Loads cleanly: every layer receives its own k and v scale.</source>
      <translation>完全正常加载：每层都收到自己的 k 和 v 缩放因子。</translation>
    </message>
    <message>
      <source>Llama, 32 layers, one scale per head, by llm-compressor</source>
      <translation>Llama,32 层，每个头一个缩放因子，llm-compressor 生成</translation>
    </message>
    <message>
      <source>Loads cleanly per head too: each layer receives one k and one v scale for every KV head.</source>
      <translation>逐头也能正常加载：每层的每个 KV 头都收到一个 k 和一个 v 缩放因子。</translation>
    </message>
    <message>
      <source>DeepSeek-V3, 30 layers, FP8 by ModelOpt</source>
      <translation>DeepSeek-V3,30 层，ModelOpt 生成的 FP8</translation>
    </message>
    <message>
      <source>vLLM 0.33.0 drops every scale silently (MLA): all layers run at 1.0.</source>
      <translation>vLLM 0.33.0 悄然丢弃每个缩放因子(MLA)：所有层都以 1.0 运行。</translation>
    </message>
    <message>
      <source>Gemma 3, 26 layers, FP8 by Quark</source>
      <translation>Gemma 3,26 层，Quark 生成的 FP8</translation>
    </message>
    <message>
      <source>Makes vLLM 0.33.0 raise while it loads: a scale's name leads to the fused qkv projection, not to an attention parameter.</source>
      <translation>使 vLLM 0.33.0 在加载时引发异常：缩放因子的名称指向融合的 qkv 投影，而不是注意力参数。</translation>
    </message>
    <message>
      <source>Llama, FP8 attention by llm-compressor</source>
      <translation>Llama,llm-compressor 生成的 FP8 注意力</translation>
    </message>
    <message>
      <source>Loads, but holds uninitialised q scales: values that no calibration ever wrote.</source>
      <translation>可以加载，但含有未初始化的 q 缩放因子：从未由校准写入的值。</translation>
    </message>
  </context>
  <context>
    <name>Session</name>
    <message>
      <source>Opening {path}</source>
      <translation>正在打开 {path}</translation>
    </message>
    <message>
      <source>Predicting</source>
      <translation>正在预测</translation>
    </message>
    <message>
      <source>Judging anew</source>
      <translation>正在重新判断</translation>
    </message>
    <message>
      <source>Comparing with {path}</source>
      <translation>正在与 {path} 比较</translation>
    </message>
  </context>
  <context>
    <name>Shortcuts</name>
    <message>
      <source>Keyboard Shortcuts</source>
      <translation>键盘快捷键</translation>
    </message>
    <message>
      <source>In the coverage strip: arrow keys move, Shift extends, Ctrl+click adds.</source>
      <translation>在覆盖条中：方向键移动，Shift 扩展，Ctrl+单击添加。</translation>
    </message>
    <message>
      <source>Keys of {command}</source>
      <translation>{command}的按键</translation>
    </message>
    <message>
      <source>{keys} stands for {commands}.</source>
      <translation>{keys} 同时代表 {commands}。</translation>
    </message>
    <message>
      <source>Choose other keys for all but one.</source>
      <translation>请为其余命令另选按键，只保留一个。</translation>
    </message>
  </context>
  <context>
    <name>Status</name>
    <message>
      <source>loaded</source>
      <translation>已加载</translation>
    </message>
    <message>
      <source>The engine's attention layer receives this value.</source>
      <translation>引擎的注意力层收到此值。</translation>
    </message>
    <message>
      <source>copied</source>
      <translation>已复制</translation>
    </message>
    <message>
      <source>The layer has no value of its own and takes the other role's.</source>
      <translation>该层没有自己的值，取用另一角色的值。</translation>
    </message>
    <message>
      <source>suspicious</source>
      <translation>可疑</translation>
    </message>
    <message>
      <source>It arrives, but a finding doubts it.</source>
      <translation>它已到达，但有一项发现对其存疑。</translation>
    </message>
    <message>
      <source>overridden</source>
      <translation>被覆盖</translation>
    </message>
    <message>
      <source>It is loaded, and then the engine sets 1.0.</source>
      <translation>它被加载，随后引擎将其设为 1.0。</translation>
    </message>
    <message>
      <source>missing</source>
      <translation>缺失</translation>
    </message>
    <message>
      <source>The layer expects a value, and no tensor brings one.</source>
      <translation>该层需要一个值，但没有张量提供。</translation>
    </message>
    <message>
      <source>dropped</source>
      <translation>被丢弃</translation>
    </message>
    <message>
      <source>The engine discards this tensor; the layer runs without it.</source>
      <translation>引擎丢弃此张量；该层在没有它的情况下运行。</translation>
    </message>
    <message>
      <source>ignored</source>
      <translation>被忽略</translation>
    </message>
    <message>
      <source>The engine does not know the name and skips it silently.</source>
      <translation>引擎不认识此名称，悄然跳过。</translation>
    </message>
    <message>
      <source>raises</source>
      <translation>引发异常</translation>
    </message>
    <message>
      <source>The engine stops with an exception here.</source>
      <translation>引擎在此处因异常而停止。</translation>
    </message>
    <message>
      <source>unreadable</source>
      <translation>无法读取</translation>
    </message>
    <message>
      <source>The file gives no value for this tensor.</source>
      <translation>文件没有给出此张量的值。</translation>
    </message>
    <message>
      <source>not reached</source>
      <translation>未到达</translation>
    </message>
    <message>
      <source>The load ends before this tensor's turn, or it is not known.</source>
      <translation>加载在轮到此张量之前就已结束，或情况未知。</translation>
    </message>
    <message>
      <source>no scale</source>
      <translation>无缩放因子</translation>
    </message>
    <message>
      <source>Nothing is stored here and nothing is expected.</source>
      <translation>此处没有存储，也不需要。</translation>
    </message>
  </context>
  <context>
    <name>StatusBar</name>
    <message>
      <source>Progress</source>
      <translation>进度</translation>
    </message>
    <message>
      <source>Cancel this job</source>
      <translation>取消此任务</translation>
    </message>
    <message>
      <source>{count} file</source>
      <translation>{count} 个文件</translation>
    </message>
    <message>
      <source>{count} files</source>
      <translation>{count} 个文件</translation>
    </message>
    <message>
      <source>{count} tensor</source>
      <translation>{count} 个张量</translation>
    </message>
    <message>
      <source>{count} tensors</source>
      <translation>{count} 个张量</translation>
    </message>
    <message>
      <source>{count} scale</source>
      <translation>{count} 个缩放因子</translation>
    </message>
    <message>
      <source>{count} scales</source>
      <translation>{count} 个缩放因子</translation>
    </message>
    <message>
      <source>{count} faulty file</source>
      <translation>{count} 个损坏的文件</translation>
    </message>
    <message>
      <source>{count} faulty files</source>
      <translation>{count} 个损坏的文件</translation>
    </message>
    <message>
      <source>{count} error</source>
      <translation>{count} 个错误</translation>
    </message>
    <message>
      <source>{count} errors</source>
      <translation>{count} 个错误</translation>
    </message>
    <message>
      <source>{count} warning</source>
      <translation>{count} 个警告</translation>
    </message>
    <message>
      <source>{count} warnings</source>
      <translation>{count} 个警告</translation>
    </message>
    <message>
      <source>no problems</source>
      <translation>没有问题</translation>
    </message>
    <message>
      <source>CUDA driver found</source>
      <translation>已找到 CUDA 驱动</translation>
    </message>
    <message>
      <source>The GPU tab lists the devices</source>
      <translation>GPU 标签页列出了设备</translation>
    </message>
    <message>
      <source>no CUDA driver</source>
      <translation>没有 CUDA 驱动</translation>
    </message>
    <message>
      <source>libcuda.so.1 is not on this machine; the loader can run on the CPU</source>
      <translation>此机器上没有 libcuda.so.1；加载器可以在 CPU 上运行</translation>
    </message>
    <message>
      <source>no CUDA device</source>
      <translation>没有 CUDA 设备</translation>
    </message>
    <message>
      <source>Cancelling {job} …</source>
      <translation>正在取消 {job}…</translation>
    </message>
  </context>
  <context>
    <name>Story</name>
    <message>
      <source>No rule matches</source>
      <translation>没有规则匹配</translation>
    </message>
    <message>
      <source>The engine looks for the name as it stands.</source>
      <translation>引擎按原样查找此名称。</translation>
    </message>
    <message>
      <source>In the checkpoint</source>
      <translation>在检查点中</translation>
    </message>
    <message>
      <source>not known</source>
      <translation>未知</translation>
    </message>
    <message>
      <source>No tensor that could be read reaches {parameter}. {files}: cannot be read, and may hold it.</source>
      <translation>能读取的张量中没有一个到达 {parameter}。{files}：无法读取，它可能就在其中。</translation>
    </message>
    <message>
      <source>no tensor</source>
      <translation>没有张量</translation>
    </message>
    <message>
      <source>No tensor of the checkpoint reaches {parameter}.</source>
      <translation>检查点中没有张量到达 {parameter}。</translation>
    </message>
    <message>
      <source>file</source>
      <translation>文件</translation>
    </message>
    <message>
      <source>stored as</source>
      <translation>存储为</translation>
    </message>
    <message>
      <source>value</source>
      <translation>值</translation>
    </message>
    <message>
      <source>quantity</source>
      <translation>量</translation>
    </message>
    <message>
      <source>convention</source>
      <translation>约定</translation>
    </message>
    <message>
      <source>{shown}, … ({count} values)</source>
      <translation>{shown}, … ({count} 个值)</translation>
    </message>
    <message>
      <source>pattern</source>
      <translation>模式</translation>
    </message>
    <message>
      <source>replaced by</source>
      <translation>替换为</translation>
    </message>
    <message>
      <source>nothing</source>
      <translation>无</translation>
    </message>
    <message>
      <source>applied by</source>
      <translation>应用者</translation>
    </message>
    <message>
      <source>Rule drops the tensor</source>
      <translation>规则丢弃此张量</translation>
    </message>
    <message>
      <source>Rule renames</source>
      <translation>规则改名</translation>
    </message>
    <message>
      <source>shadowed</source>
      <translation>被遮蔽</translation>
    </message>
    <message>
      <source>excluded</source>
      <translation>被排除</translation>
    </message>
    <message>
      <source>one part off</source>
      <translation>差一部分</translation>
    </message>
    <message>
      <source>other backend</source>
      <translation>其他后端</translation>
    </message>
    <message>
      <source>not asked</source>
      <translation>未询问</translation>
    </message>
    <message>
      <source>Nearly matched</source>
      <translation>几乎匹配</translation>
    </message>
    <message>
      <source>rule</source>
      <translation>规则</translation>
    </message>
    <message>
      <source>held by</source>
      <translation>持有者</translation>
    </message>
    <message>
      <source>layer</source>
      <translation>层</translation>
    </message>
    <message>
      <source>created by</source>
      <translation>创建者</translation>
    </message>
    <message>
      <source>parameter shape</source>
      <translation>参数形状</translation>
    </message>
    <message>
      <source>Parameter found</source>
      <translation>找到参数</translation>
    </message>
    <message>
      <source>Parameter not looked for</source>
      <translation>未查找参数</translation>
    </message>
    <message>
      <source>none</source>
      <translation>无</translation>
    </message>
    <message>
      <source>the layer has</source>
      <translation>该层拥有</translation>
    </message>
    <message>
      <source>it waits for</source>
      <translation>它等待</translation>
    </message>
    <message>
      <source>named so</source>
      <translation>同名者</translation>
    </message>
    <message>
      <source>No such parameter</source>
      <translation>没有此参数</translation>
    </message>
    <message>
      <source>exception</source>
      <translation>异常</translation>
    </message>
    <message>
      <source>next</source>
      <translation>下一步</translation>
    </message>
    <message>
      <source>What {engine} does</source>
      <translation>{engine} 的处理</translation>
    </message>
    <message>
      <source>After loading</source>
      <translation>加载之后</translation>
    </message>
    <message>
      <source>from the checkpoint</source>
      <translation>来自检查点</translation>
    </message>
    <message>
      <source>copied from the other role</source>
      <translation>复制自另一角色</translation>
    </message>
    <message>
      <source>the engine's default: nothing arrived</source>
      <translation>引擎的默认值：什么都没有到达</translation>
    </message>
    <message>
      <source>set by the engine</source>
      <translation>由引擎设定</translation>
    </message>
    <message>
      <source>per head</source>
      <translation>每个头</translation>
    </message>
    <message>
      <source>The layer ends with nothing</source>
      <translation>该层最终什么也没有</translation>
    </message>
    <message>
      <source>The load is over before it gets a value.</source>
      <translation>在它得到值之前加载就已结束。</translation>
    </message>
    <message>
      <source>The layer would end with</source>
      <translation>该层将会得到</translation>
    </message>
    <message>
      <source>That is, if the unreadable files hold nothing for it.</source>
      <translation>前提是无法读取的文件中没有属于它的内容。</translation>
    </message>
    <message>
      <source>The layer ends with</source>
      <translation>该层最终持有</translation>
    </message>
    <message>
      <source>consequence</source>
      <translation>后果</translation>
    </message>
    <message>
      <source>fix</source>
      <translation>修复</translation>
    </message>
  </context>
  <context>
    <name>Strip</name>
    <message>
      <source>Coverage: roles by layers</source>
      <translation>覆盖：角色 × 层</translation>
    </message>
    <message>
      <source>layer</source>
      <translation>层</translation>
    </message>
    <message>
      <source>layer {layer}, {path}</source>
      <translation>第 {layer} 层，{path}</translation>
    </message>
    <message>
      <source>ends with {value}</source>
      <translation>最终为 {value}</translation>
    </message>
  </context>
  <context>
    <name>Text</name>
    <message>
      <source>scalar</source>
      <translation>标量</translation>
    </message>
  </context>
  <context>
    <name>Waiting</name>
    <message>
      <source>Try again</source>
      <translation>重试</translation>
    </message>
    <message>
      <source>Back to the start page</source>
      <translation>回到起始页</translation>
    </message>
    <message>
      <source>Copy details</source>
      <translation>复制详情</translation>
    </message>
    <message>
      <source>Reading headers, configs and scales …</source>
      <translation>正在读取头部、配置和缩放因子…</translation>
    </message>
    <message>
      <source>Opening was cancelled.</source>
      <translation>打开已取消。</translation>
    </message>
  </context>
  <context>
    <name>Welcome</name>
    <message>
      <source>Will the engine really receive these KV-cache scales?</source>
      <translation>引擎真的会收到这些 KV 缓存缩放因子吗？</translation>
    </message>
    <message>
      <source>KVScope opens a checkpoint, says what each attention layer ends with in the engine you choose, rule by rule why, and writes a copy that loads as intended.</source>
      <translation>KVScope 打开检查点，说明在所选引擎中每个注意力层最终持有什么，逐条规则说明原因，并能写出一份按预期加载的副本。</translation>
    </message>
    <message>
      <source>Bundled samples</source>
      <translation>内置示例</translation>
    </message>
    <message>
      <source>Recent</source>
      <translation>最近打开</translation>
    </message>
    <message>
      <source>Checkpoints you open are listed here.</source>
      <translation>您打开的检查点会列在这里。</translation>
    </message>
  </context>
  <context>
    <name>WhyPanel</name>
    <message>
      <source>Why</source>
      <translation>原因</translation>
    </message>
    <message>
      <source>Copy the story as text</source>
      <translation>以文本形式复制经过</translation>
    </message>
    <message>
      <source>Copy the story as JSON</source>
      <translation>以 JSON 形式复制经过</translation>
    </message>
    <message>
      <source>This tensor is no KV-cache scale: nothing is predicted for it.</source>
      <translation>此张量不是 KV 缓存缩放因子：对它没有预测。</translation>
    </message>
    <message>
      <source>Select a key to see, rule by rule, where it ends and why.</source>
      <translation>选择一个键，逐条规则查看它的去向和原因。</translation>
    </message>
    <message>
      <source>and {count} more selected</source>
      <translation>另选中 {count} 个</translation>
    </message>
  </context>
  <context>
    <name>Window</name>
    <message>
      <source>Getting ready</source>
      <translation>正在准备</translation>
    </message>
    <message>
      <source>Open in a tab of its own</source>
      <translation>在新标签页中打开</translation>
    </message>
    <message>
      <source>Compare with {name}</source>
      <translation>与 {name} 比较</translation>
    </message>
  </context>
  <context>
    <name>Workspace</name>
    <message>
      <source>Details</source>
      <translation>详情</translation>
    </message>
    <message>
      <source>Problems</source>
      <translation>问题</translation>
    </message>
    <message>
      <source>Engines</source>
      <translation>引擎</translation>
    </message>
    <message>
      <source>Backends</source>
      <translation>后端</translation>
    </message>
    <message>
      <source>Plot</source>
      <translation>图表</translation>
    </message>
    <message>
      <source>Compare</source>
      <translation>比较</translation>
    </message>
    <message>
      <source>Export preview</source>
      <translation>导出预览</translation>
    </message>
    <message>
      <source>GPU</source>
      <translation>GPU</translation>
    </message>
    <message>
      <source>Config</source>
      <translation>配置</translation>
    </message>
    <message>
      <source>Log</source>
      <translation>日志</translation>
    </message>
    <message>
      <source>Continued from the top</source>
      <translation>已从头继续</translation>
    </message>
    <message>
      <source>Continued from the bottom</source>
      <translation>已从尾继续</translation>
    </message>
    <message>
      <source>Opening</source>
      <translation>正在打开</translation>
    </message>
    <message>
      <source>Cancelled</source>
      <translation>已取消</translation>
    </message>
    <message>
      <source>Cannot be opened</source>
      <translation>无法打开</translation>
    </message>
    <message>
      <source>{key} is not in this checkpoint</source>
      <translation>{key} 不在此检查点中</translation>
    </message>
    <message>
      <source>{name} in {engine}</source>
      <translation>{engine} 中的 {name}</translation>
    </message>
    <message>
      <source>Problems ({count})</source>
      <translation>问题 ({count})</translation>
    </message>
  </context>
</TS>
